#include "kernels/learned_rounding.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "core/each_target.h"
#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"
#include "kernels/rounding.h"

namespace retort::kernels {
namespace {

constexpr int64_t kWorth = 1 << 17;  // values that are worth a thread: some 50 us

using Eight = float __attribute__((vector_size(32)));

// One row's dL/dx, and scale * dL/dscale: the sum of g (value - x where it is inside and the rule follows it;
// value elsewhere). Eight f32 sums of 256 values at a time, then f64. `out` may be g.
RETORT_EACH_TARGET
double backward_row(const float* w, const float* g, const float* value, float low, float high, float follows,
                    float* out, int64_t count) {
  const Eight zero = {}, one = zero + 1.0f;
  double total = 0;
  for (int64_t i = 0; i < count;) {
    Eight lanes = {};
    const int64_t end = std::min(count, i + 256);
    for (; i + 8 <= end; i += 8) {
      Eight x, slope, y;
      std::memcpy(&x, w + i, sizeof x);
      std::memcpy(&slope, g + i, sizeof slope);
      std::memcpy(&y, value + i, sizeof y);
      const Eight inside = (x >= low) & (x <= high) ? one : zero, kept = inside * slope;
      std::memcpy(out + i, &kept, sizeof kept);
      lanes += slope * (y - follows * inside * x);
    }
    for (; i < end; ++i) {
      const float slope = g[i], inside = w[i] >= low && w[i] <= high ? 1.0f : 0.0f;
      out[i] = inside * slope;
      lanes[0] += slope * (value[i] - follows * inside * w[i]);
    }
    for (int l = 0; l < 8; ++l) total += static_cast<double>(lanes[l]);
  }
  return total;
}

void check_tensor(const char* name, const at::Tensor& tensor, const at::Device& device,
                  at::IntArrayRef shape) {
  check(tensor.defined() && tensor.device() == device && tensor.scalar_type() == at::kFloat &&
            tensor.sizes() == shape,
        "[round_backward] {} must be f32 {} where x is, got {} {}", name, format_shape(shape),
        tensor.toString(), tensor.defined() ? format_shape(tensor.sizes()) : "");
}

// The kernels that take x; nullptr on the CPU.
const cuda::Ops* kernels_of(const char* where, const at::Tensor& x) {
  const cuda::Ops* const ops = cuda::ops_for(x);
  check(x.scalar_type() == at::kFloat && (x.is_cpu() || ops != nullptr),
        "[{}] takes f32 on the CPU, or on a device that has kernels; got {}", where, x.toString());
  return ops;
}

// exp(t) for |t| < 700, by operations that round alone, so that a device has the same bits: 2^k times the series of
// what is left, |r| <= log(2) / 2. Within three units of the last place.
double exponential(double t) {
  constexpr double kShift = 0x1.8p52;  // a sum with it is whole
  const double shifted = t * 0x1.71547652b82fep0 + kShift, k = shifted - kShift;
  const double r =
      t - k * 0x1.62e42feep-1 - k * 0x1.a39ef35793c76p-33;  // log(2), whose first part has few bits
  double p = 1.0 / 6227020800.0;
  for (const double factorial : {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0,
                                 24.0, 6.0, 2.0, 1.0, 1.0})
    p = p * r + 1.0 / factorial;
  const auto exponent = std::bit_cast<uint64_t>(shifted) - std::bit_cast<uint64_t>(kShift);
  return p * std::bit_cast<double>((exponent + 1023) << 52);
}

}  // namespace

at::Tensor learned_scales(const at::Tensor& theta) {
  const at::Tensor dense = theta.contiguous();
  if (const cuda::Ops* const ops = kernels_of("learned_scales", dense)) return ops->learned_scales(dense);
  at::Tensor scales = at::empty_like(dense);
  const float* from = dense.const_data_ptr<float>();
  float* to = scales.mutable_data_ptr<float>();
  for (int64_t i = 0; i < dense.numel();
       ++i)  // clamp() keeps NaN; the bounds lie beyond the logarithms of those below
    to[i] = static_cast<float>(
        std::clamp(exponential(std::clamp<double>(from[i], -9.75, 11.1)), kLeastLearned, kMostLearned));
  return scales.to(at::kHalf).to(at::kFloat);
}

at::Tensor round_backward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gradient,
                          const LearnedRounding& rule, const at::Tensor& out) {
  check(x.defined() && x.dim() == 2, "[round_backward] x must be [rows, row], got {}",
        x.defined() ? format_shape(x.sizes()) : "an undefined tensor");
  const int64_t rows = x.size(0), row = x.size(1);
  const cuda::Ops* const ops = kernels_of("round_backward", x);
  check_tensor("scale", scale, x.device(), {rows, 1});
  check_tensor("the gradient", gradient, x.device(), x.sizes());
  check_tensor("out", out, x.device(), x.sizes());
  check(out.is_contiguous(), "[round_backward] out must be contiguous");
  const at::Tensor dense_x = x.contiguous(), dense_g = gradient.contiguous(),
                   dense_scale = scale.contiguous();
  if (ops != nullptr) return ops->round_backward(dense_x, dense_scale, dense_g, rule, out);
  const float *xs = dense_x.const_data_ptr<float>(), *gs = dense_g.const_data_ptr<float>(),
              *scales = dense_scale.const_data_ptr<float>();
  at::Tensor sums = at::empty({rows, 1}, at::kDouble);
  float* outs = out.mutable_data_ptr<float>();
  double* totals = sums.mutable_data_ptr<double>();
  const int64_t grain = std::max<int64_t>(1, kWorth / std::max<int64_t>(1, row));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(row));
    for (int64_t r = begin; r < end; ++r) {
      const float low = static_cast<float>(rule.low) * scales[r],
                  high = static_cast<float>(rule.high) * scales[r];
      round_to_values(xs + r * row, scales + r, scales + r, nullptr, values.data(), 1, row, rule.rounding);
      totals[r] = backward_row(xs + r * row, gs + r * row, values.data(), low, high,
                               rule.follows ? 1.0f : 0.0f, outs + r * row, row);
    }
  });
  return sums;
}

}  // namespace retort::kernels
