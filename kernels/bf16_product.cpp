#include "kernels/bf16_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cpu/elements.h"

namespace retort::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of a block, whose sums and widened rows stay in the second cache; fewer rows where threads would be idle.
constexpr int64_t kRows = 256, kColumns = 512, kFewest = 64;

struct Blocks {
  int64_t rows = kRows, columns = kColumns, across = 0, count = 0;
  Blocks(int64_t all_rows, int64_t all_columns) {
    const int64_t threads = at::get_num_threads(), wanted = threads == 1 ? 1 : 2 * threads;
    const auto parts = [](int64_t n, int64_t of) { return (n + of - 1) / of; };
    const auto enough = [&] { return parts(all_rows, rows) * parts(all_columns, columns) >= wanted; };
    while (!enough() && rows > kFewest) rows /= 2;
    while (!enough() && columns > kFewest) columns /= 2;
    across = parts(all_columns, columns);
    count = parts(all_rows, rows) * across;
  }
};

// With rows or columns that lie together.
at::Tensor dense(const at::Tensor& x) { return x.stride(1) == 1 || x.stride(0) == 1 ? x : x.contiguous(); }

bool in_f32(const at::Tensor& x) {
  static const bool faster = multiplies_bf16_in_f32(cpu_features());
  return faster && x.is_cpu() && x.scalar_type() == at::kBFloat16;
}

at::Tensor flat(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

at::Tensor product_in_f32(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  at::Tensor out_MN = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options().requires_grad(false));
  product_in_f32_out(out_MN, a_MK, b_KN);
  return out_MN;
}

// Keeps what the wanted gradients need.
struct LinearInF32 : torch::autograd::Function<LinearInF32> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& w_OI,
                            const std::optional<at::Tensor>& bias_O) {
    context->save_for_backward(
        {w_OI.requires_grad() ? x : at::Tensor(), x.requires_grad() ? w_OI : at::Tensor()});
    context->saved_data["learns_bias"] = bias_O && bias_O->requires_grad();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = w_OI.size(0);
    at::Tensor y = at::empty(shape, x.options().requires_grad(false)), y_NO = y.view({-1, w_OI.size(0)});
    product_in_f32_out(y_NO, flat(x), w_OI.t(), bias_O.value_or(at::Tensor()));
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &w_OI = saved[1], &dy = gradients[0], dy_NO = flat(dy);
    at::Tensor dx, dw_OI, dbias_O;
    if (w_OI.defined()) {
      std::vector<int64_t> shape = dy.sizes().vec();
      shape.back() = w_OI.size(1);
      dx = product_in_f32(dy_NO, w_OI).view(shape);
    }
    if (x.defined()) dw_OI = product_in_f32(dy_NO.t(), flat(x));
    if (context->saved_data["learns_bias"].toBool()) dbias_O = dy_NO.sum(0);
    return {dx, dw_OI, dbias_O};
  }
};

}  // namespace

// From Sapphire Rapids on, which fp16 tells, Intel's AVX-512 products of bf16 have half the rate of its f32: AMX is
// meant to do them, and a virtual machine may hide it.
bool multiplies_bf16_in_f32(const CpuFeatures& cpu) {
  return !cpu.amx_bf16 && (!cpu.avx512_bf16 || (cpu.intel && cpu.avx512_fp16));
}

void product_in_f32_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                        const at::Tensor& bias_N) {
  const int64_t M = a_MK.size(0), K = a_MK.size(1), N = b_KN.size(1);
  check_shape("bf16_product", "b_KN", b_KN, {K, -1});
  check_shape("bf16_product", "out_MN", out_MN, {M, N});
  if (bias_N.defined()) check_shape("bf16_product", "bias_N", bias_N, {N});
  for (const at::Tensor& t : {a_MK, b_KN, out_MN, bias_N})
    check(!t.defined() || (t.is_cpu() && t.scalar_type() == at::kBFloat16),
          "[bf16_product] all must be bf16 on the CPU, got {}", c10::toString(t.scalar_type()));
  check(N <= 1 || out_MN.stride(1) == 1, "[bf16_product] rows of out_MN must be dense");
  const at::Tensor a = dense(a_MK), b = dense(b_KN),
                   bias = bias_N.defined() ? bias_N.contiguous() : at::Tensor();
  const auto *of_a = cpu::read<cpu::Bf16>(a), *of_b = cpu::read<cpu::Bf16>(b),
             *of_bias = bias.defined() ? cpu::read<cpu::Bf16>(bias) : nullptr;
  auto* const out = cpu::write<cpu::Bf16>(out_MN);
  RECORD_FUNCTION("retort::bf16_product", std::vector<c10::IValue>({a, b}));
  if (K == 0) return void(bias.defined() ? out_MN.copy_(bias.expand_as(out_MN)) : out_MN.zero_());
  const cpu::Table& loops = cpu::cpu_table();
  const Blocks blocks(M, N);
  const auto shape = [&](int64_t rows, int64_t columns) {
    return cpu::ProductShape{rows,        columns,     K,           a.stride(0),
                             a.stride(1), b.stride(0), b.stride(1), out_MN.stride(0)};
  };
  at::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
    const cpu::ProductShape largest = shape(std::min(blocks.rows, M), std::min(blocks.columns, N));
    const at::Tensor scratch = at::empty({loops.bf16_product_scratch(largest)}, at::kFloat);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t i = n / blocks.across * blocks.rows, j = n % blocks.across * blocks.columns;
      const cpu::ProductShape s = shape(std::min(blocks.rows, M - i), std::min(blocks.columns, N - j));
      loops.bf16_product(s, of_a + i * s.a_row, of_b + j * s.b_column, of_bias ? of_bias + j : nullptr,
                         out + i * s.c_row + j, cpu::write<float>(scratch));
    }
  });
}

void product_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  in_f32(a_MK) ? product_in_f32_out(out_MN, a_MK, b_KN) : void(at::mm_out(out_MN, a_MK, b_KN));
}

at::Tensor product(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  return in_f32(a_MK) ? product_in_f32(a_MK, b_KN) : at::mm(a_MK, b_KN);
}

at::Tensor linear_product_in_f32(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O) {
  check_shape("linear", "w_OI", w_OI, {-1, x.size(-1)});
  return LinearInF32::apply(x, w_OI, bias_O.defined() ? std::optional(bias_O) : std::nullopt);
}

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O) {
  return in_f32(x) ? linear_product_in_f32(x, w_OI, bias_O) : at::linear(x, w_OI, bias_O);
}

}  // namespace retort::kernels
