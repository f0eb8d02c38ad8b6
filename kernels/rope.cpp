#include "kernels/rope.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/shape.h"
#include "core/upload.h"
#include "kernels/cpu/elements.h"
#include "kernels/cuda_ops.h"
#include "kernels/reference.h"

namespace retort::kernels {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Pair = std::pair<at::Tensor, at::Tensor>;

// [N, H, K] whose heads are dense, and tokens evenly apart: as columns of a product are.
at::Tensor tokens_of(const at::Tensor& x_BTHK) {
  const bool rows = x_BTHK.size(0) == 1 || x_BTHK.stride(0) == x_BTHK.size(1) * x_BTHK.stride(1);
  const bool even = rows && x_BTHK.stride(2) == x_BTHK.size(3) && x_BTHK.stride(3) == 1;
  return (even ? x_BTHK : x_BTHK.contiguous()).flatten(0, 1);
}

at::Tensor rotate_on_host(const at::Tensor& x_BTHK, const RopeTables& tables, const at::Tensor& positions_BT,
                          float sign) {
  const at::Tensor x = x_BTHK.contiguous(), positions = positions_BT.to(at::kLong).contiguous();
  const at::Tensor cos = tables.cos_PK.contiguous(), sin = tables.sin_PK.contiguous();
  const int64_t tokens = positions.numel(), heads = x.size(2), half = x.size(3) / 2,
                each = x.size(2) * x.size(3);
  at::Tensor y = at::empty_like(x);
  cpu::with_elements(x, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, tokens, cpu::grain(each), [&](int64_t begin, int64_t end) {
      cpu::cpu_table().of<T>().rope(cpu::read<T>(x) + begin * each, cos.const_data_ptr<float>(),
                                    sin.const_data_ptr<float>(), positions.const_data_ptr<int64_t>() + begin,
                                    cpu::write<T>(y) + begin * each, end - begin, heads, half, sign);
    });
  });
  return y;
}

// sign -1 turns back: the transpose of a rotation, scaled or not.
Pair rotate(const at::Tensor& q_BTHK, const at::Tensor& k_BTGK, const RopeTables& tables,
            const at::Tensor& positions_BT, float sign) {
  if (q_BTHK.is_cpu())
    return {rotate_on_host(q_BTHK, tables, positions_BT, sign),
            rotate_on_host(k_BTGK, tables, positions_BT, sign)};
  const auto [q_NHK, k_NGK] =
      cuda::ops_for(q_BTHK)->rope(tokens_of(q_BTHK), tokens_of(k_BTGK), tables.cos_PK.contiguous(),
                                  tables.sin_PK.contiguous(), positions_BT.to(at::kLong).contiguous(), sign);
  return {q_NHK.view(q_BTHK.sizes()), k_NGK.view(k_BTGK.sizes())};
}

struct Rope : torch::autograd::Function<Rope> {
  static variable_list forward(AutogradContext* context, const at::Tensor& q_BTHK, const at::Tensor& k_BTGK,
                               const at::Tensor& cos_PK, const at::Tensor& sin_PK,
                               const at::Tensor& positions_BT) {
    context->save_for_backward({cos_PK, sin_PK, positions_BT});
    const auto [q, k] = rotate(q_BTHK, k_BTGK, {cos_PK, sin_PK}, positions_BT, 1.0f);
    return {q, k};
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    RECORD_USER_SCOPE_WITH_INPUTS("retort::rope_backward",
                                  std::vector<c10::IValue>({gradients[0], gradients[1], saved[2]}));
    const auto [q, k] = rotate(gradients[0], gradients[1], {saved[0], saved[1]}, saved[2], -1.0f);
    return {q, k, {}, {}, {}};
  }
};

// Llama 3.1: long wavelengths are divided by the factor, short ones kept, those between blended.
double llama3_frequency(double frequency, const RopeScaling& s) {
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double original = static_cast<double>(s.original_context);
  if (wavelength > original / s.low_freq_factor) return frequency / s.factor;
  if (wavelength < original / s.high_freq_factor) return frequency;
  const double blend = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1.0 - blend) * frequency / s.factor + blend * frequency;
}

// On the CPU only: elsewhere the check would wait for the device.
void check_positions(const at::Tensor& positions_BT, int64_t known) {
  if (!positions_BT.is_cpu() || positions_BT.numel() == 0) return;
  const auto [low, high] = at::aminmax(positions_BT);
  check(low.item<int64_t>() >= 0 && high.item<int64_t>() < known,
        "[rope] positions must be in [0, {}), got {} .. {}", known, low.item<int64_t>(),
        high.item<int64_t>());
}

}  // namespace

at::Tensor rope_frequencies(int64_t head_dim, double theta, const RopeScaling& scaling, bool past_original) {
  check<ConfigError>(head_dim > 0 && head_dim % 2 == 0, "[rope] head_dim must be even, got {}", head_dim);
  const bool linear = scaling.kind == "linear", llama3 = scaling.kind == "llama3",
             longrope = scaling.kind == "longrope";
  check<ConfigError>(linear || llama3 || longrope || scaling.kind == "none",
                     "[rope] scaling must be none, linear, llama3 or longrope, got \"{}\"", scaling.kind);
  const std::vector<double>& factors = past_original ? scaling.long_factor : scaling.short_factor;
  check<ConfigError>(!longrope || std::ssize(factors) == head_dim / 2,
                     "[rope] longrope needs {} factors of each kind, got {}", head_dim / 2, factors.size());
  at::Tensor frequencies = at::empty({head_dim / 2}, at::kDouble);
  double* out = frequencies.mutable_data_ptr<double>();
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    out[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (linear) out[i] /= scaling.factor;
    if (llama3) out[i] = llama3_frequency(out[i], scaling);
    if (longrope) out[i] /= factors[static_cast<size_t>(i)];
  }
  return frequencies;
}

double rope_amplitude(const RopeScaling& scaling) {
  if (scaling.kind != "longrope") return 1.0;
  if (scaling.attention_factor > 0.0) return scaling.attention_factor;
  if (scaling.factor <= 1.0) return 1.0;
  return std::sqrt(1.0 + std::log(scaling.factor) / std::log(static_cast<double>(scaling.original_context)));
}

RopeTables rope_tables(const at::Tensor& frequencies, int64_t positions, const at::Device& device,
                       double amplitude) {
  const at::Tensor angles_PK = at::outer(at::arange(positions, at::kDouble), frequencies);
  const auto table = [&](const at::Tensor& values_PK) {
    return upload(values_PK.mul(amplitude).to(at::kFloat), device);
  };
  return {table(angles_PK.cos()), table(angles_PK.sin())};
}

std::pair<at::Tensor, at::Tensor> rope(const at::Tensor& q_BTHK, const at::Tensor& k_BTGK,
                                       const RopeTables& tables, const at::Tensor& positions_BT) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::rope", std::vector<c10::IValue>({q_BTHK, k_BTGK, positions_BT}));
  check_shape("rope", "q_BTHK", q_BTHK, {-1, -1, -1, 2 * tables.cos_PK.size(1)});
  check_shape("rope", "k_BTGK", k_BTGK, {q_BTHK.size(0), q_BTHK.size(1), -1, q_BTHK.size(3)});
  check_shape("rope", "positions_BT", positions_BT, {q_BTHK.size(0), q_BTHK.size(1)});
  check_positions(positions_BT, tables.cos_PK.size(0));
  const auto fused = [](const at::Tensor& x) { return cpu::has_loops(x) || cuda::takes(x); };
  if (!fused(q_BTHK) || !fused(k_BTGK) || q_BTHK.scalar_type() != k_BTGK.scalar_type())
    return {reference::rope(q_BTHK, tables, positions_BT), reference::rope(k_BTGK, tables, positions_BT)};
  const variable_list both = Rope::apply(q_BTHK, k_BTGK, tables.cos_PK, tables.sin_PK, positions_BT);
  return {both[0], both[1]};
}

}  // namespace retort::kernels
