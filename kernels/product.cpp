#include "kernels/product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/mm_ops.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cpu/elements.h"

// Exported by the LibTorch that is built with MKL; no header of its wheel declares it.
extern "C" __attribute__((weak)) void cblas_gemm_bf16bf16f32(int layout, int transpose_a, int transpose_b,
                                                             int m, int n, int k, float alpha,
                                                             const uint16_t* a, int lda, const uint16_t* b,
                                                             int ldb, float beta, float* c, int ldc);

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

void check_bf16(const at::Tensor& t) {
  check(!t.defined() || (t.is_cpu() && t.scalar_type() == at::kBFloat16),
        "[product] all must be bf16 on the CPU, got {}", c10::toString(t.scalar_type()));
}

void check_sum(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  check_shape("product", "b_CD", b_CD, {a_CV.size(0), -1});
  check_shape("product", "sum_VD", sum_VD, {a_CV.size(1), b_CD.size(1)});
  for (const at::Tensor& t : {a_CV, b_CD}) check_bf16(t);
  check(sum_VD.scalar_type() == at::kFloat && sum_VD.is_contiguous(),
        "[product] sum_VD must be f32 and dense");
}

// loop(shape, a, b, place in out, scratch) for each block of a b, on all threads.
template <class Loop>
void for_blocks(const at::Tensor& a_MK, const at::Tensor& b_KN, int64_t out_row, Loop loop) {
  RECORD_FUNCTION("retort::bf16_product", std::vector<c10::IValue>({a_MK, b_KN}));
  const int64_t M = a_MK.size(0), K = a_MK.size(1), N = b_KN.size(1);
  const auto *of_a = cpu::read<cpu::Bf16>(a_MK), *of_b = cpu::read<cpu::Bf16>(b_KN);
  const Blocks blocks(M, N);
  const auto shape = [&](int64_t rows, int64_t columns) {
    return cpu::ProductShape{std::min(rows, M), std::min(columns, N), K,      a_MK.stride(0), a_MK.stride(1),
                             b_KN.stride(0),    b_KN.stride(1),       out_row};
  };
  at::parallel_for(0, blocks.count, 1, [&](int64_t begin, int64_t end) {
    const int64_t floats = cpu::cpu_table().bf16_product_scratch(shape(blocks.rows, blocks.columns));
    const at::Tensor scratch = at::empty({floats}, at::kFloat);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t i = n / blocks.across * blocks.rows, j = n % blocks.across * blocks.columns;
      const cpu::ProductShape s = shape(std::min(blocks.rows, M - i), std::min(blocks.columns, N - j));
      loop(s, of_a + i * s.a_row, of_b + j * s.b_column, i, j, cpu::write<float>(scratch));
    }
  });
}

at::Tensor product_in_f32(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  at::Tensor out_MN = at::empty({a_MK.size(0), b_KN.size(1)}, a_MK.options().requires_grad(false));
  products::in_f32_out(out_MN, a_MK, b_KN);
  return out_MN;
}

at::Tensor multiply(const at::Tensor& a_MK, const at::Tensor& b_KN, bool wide) {
  return wide ? product_in_f32(a_MK, b_KN) : at::mm(a_MK, b_KN);
}

// x W^T + b.
at::Tensor linear_values(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O, bool wide) {
  if (!wide) return at::linear(x, w_OI, bias_O);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = w_OI.size(0);
  at::Tensor y = at::empty(shape, x.options()), y_NO = y.view({-1, w_OI.size(0)});
  products::in_f32_out(y_NO, flat(x), w_OI.t(), bias_O);
  return y;
}

std::vector<at::Tensor> all_values(const at::Tensor& x, at::TensorList weights_OI, at::TensorList biases_O,
                                   bool wide) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> out;
  for (size_t i = 0; i < weights_OI.size(); ++i)
    out.push_back(linear_values(x, weights_OI[i], biases_O.empty() ? at::Tensor() : biases_O[i], wide));
  return out;
}

bool learns(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) { return t.requires_grad(); });
}

// Keeps what the wanted gradients need: x for the weights', the weights for that of x.
struct Linears : torch::autograd::Function<Linears> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, at::TensorList weights_OI,
                               at::TensorList biases_O, bool wide) {
    variable_list saved{learns(weights_OI) ? x : at::Tensor()};
    if (x.requires_grad()) saved.insert(saved.end(), weights_OI.begin(), weights_OI.end());
    context->save_for_backward(std::move(saved));
    context->set_materialize_grads(false);
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["biases"] = !biases_O.empty();
    context->saved_data["wide"] = wide;
    return all_values(x, weights_OI, biases_O, wide);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const bool biases = context->saved_data["biases"].toBool(), wide = context->saved_data["wide"].toBool();
    const size_t n = gradients.size();
    variable_list out(1 + n + (biases ? n : 0) + 1);
    for (size_t i = 0; i < n; ++i) {
      if (!gradients[i].defined()) continue;
      const at::Tensor dy_NO = flat(gradients[i]);
      if (saved.size() > 1) add_rows(out[0], dy_NO, saved[1 + i], wide);
      if (context->needs_input_grad(1 + i)) out[1 + i] = multiply(dy_NO.t(), flat(saved[0]), wide);
      if (biases && context->needs_input_grad(1 + n + i)) out[1 + n + i] = dy_NO.sum(0);
    }
    if (out[0].defined()) out[0] = out[0].view(context->saved_data["shape"].toIntVector());
    return out;
  }

 private:
  // sum_NI += dy_NO w_OI; undefined: 0. In f32 units it is rounded as two tensors are that are added.
  static void add_rows(at::Tensor& sum_NI, const at::Tensor& dy_NO, const at::Tensor& w_OI, bool wide) {
    if (!sum_NI.defined())
      sum_NI = multiply(dy_NO, w_OI, wide);
    else if (wide)
      sum_NI.add_(product_in_f32(dy_NO, w_OI));
    else
      sum_NI.addmm_(dy_NO, w_OI);
  }
};

}  // namespace

// From Sapphire Rapids on, which fp16 tells, Intel's AVX-512 products of bf16 have half the rate of its f32: AMX is
// meant to do them, and a virtual machine may hide it.
bool multiplies_bf16_in_f32(const CpuFeatures& cpu) {
  return !cpu.amx_bf16 && (!cpu.avx512_bf16 || (cpu.intel && cpu.avx512_fp16));
}

bool prefers_bf16(const CpuFeatures& cpu) {
  return (cpu.avx512_bf16 || cpu.amx_bf16) && !multiplies_bf16_in_f32(cpu);
}

namespace products {

void in_f32_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                const at::Tensor& bias_N) {
  const int64_t M = a_MK.size(0), K = a_MK.size(1), N = b_KN.size(1);
  check_shape("product", "b_KN", b_KN, {K, -1});
  check_shape("product", "out_MN", out_MN, {M, N});
  if (bias_N.defined()) check_shape("product", "bias_N", bias_N, {N});
  for (const at::Tensor& t : {a_MK, b_KN, out_MN, bias_N}) check_bf16(t);
  check(N <= 1 || out_MN.stride(1) == 1, "[product] rows of out_MN must be dense");
  const at::Tensor bias = bias_N.defined() ? bias_N.contiguous() : at::Tensor();
  if (K == 0) return void(bias.defined() ? out_MN.copy_(bias.expand_as(out_MN)) : out_MN.zero_());
  const auto* const of_bias = bias.defined() ? cpu::read<cpu::Bf16>(bias) : nullptr;
  auto* const out = cpu::write<cpu::Bf16>(out_MN);
  for_blocks(dense(a_MK), dense(b_KN), out_MN.stride(0),
             [&](const auto& s, auto* a, auto* b, int64_t i, int64_t j, float* scratch) {
               cpu::cpu_table().bf16_product(s, a, b, of_bias ? of_bias + j : nullptr, out + i * s.c_row + j,
                                             scratch);
             });
}

void add_in_f32(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  check_sum(sum_VD, a_CV, b_CD);
  if (a_CV.size(0) == 0) return;
  auto* const sum = cpu::write<float>(sum_VD);
  for_blocks(dense(a_CV).t(), dense(b_CD), sum_VD.stride(0),
             [&](const auto& s, auto* a, auto* b, int64_t i, int64_t j, float* scratch) {
               cpu::cpu_table().bf16_product_added(s, a, b, sum + i * s.c_row + j, scratch);
             });
}

std::vector<at::Tensor> linears(const at::Tensor& x, at::TensorList weights_OI, at::TensorList biases_O,
                                bool wide) {
  for (const at::Tensor& w_OI : weights_OI) check_shape("linear", "w_OI", w_OI, {-1, x.size(-1)});
  check(biases_O.empty() || biases_O.size() == weights_OI.size(),
        "[linear] each of {} weights must have a bias, or none, got {}", weights_OI.size(), biases_O.size());
  const bool records =
      at::GradMode::is_enabled() && (x.requires_grad() || learns(weights_OI) || learns(biases_O));
  return records ? Linears::apply(x, weights_OI, biases_O, wide) : all_values(x, weights_OI, biases_O, wide);
}

bool add_by_mkl(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  check_sum(sum_VD, a_CV, b_CD);
  if (cblas_gemm_bf16bf16f32 == nullptr) return false;
  constexpr int kRowMajor = 101, kAsItIs = 111, kTransposed = 112;
  const at::Tensor a = a_CV.contiguous(), b = b_CD.contiguous();
  const auto bits = [](const at::Tensor& x) { return static_cast<const uint16_t*>(x.const_data_ptr()); };
  const auto size = [](const at::Tensor& x, int64_t d) {
    return static_cast<int>(std::max<int64_t>(1, x.size(d)));
  };
  if (a.numel() == 0 || b.numel() == 0) return true;
  cblas_gemm_bf16bf16f32(kRowMajor, kTransposed, kAsItIs, size(a, 1), size(b, 1), size(a, 0), 1.0f, bits(a),
                         size(a, 1), bits(b), size(b, 1), 1.0f, sum_VD.mutable_data_ptr<float>(), size(b, 1));
  return true;
}

}  // namespace products

void product_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  in_f32(a_MK) ? products::in_f32_out(out_MN, a_MK, b_KN) : void(at::mm_out(out_MN, a_MK, b_KN));
}

at::Tensor product(const at::Tensor& a_MK, const at::Tensor& b_KN) {
  return in_f32(a_MK) ? product_in_f32(a_MK, b_KN) : at::mm(a_MK, b_KN);
}

void add_product(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  const at::NoGradGuard no_grad;
  const at::Tensor a_VC = a_CV.t();
  const bool first = !sum_VD.defined(), wide = a_CV.scalar_type() == at::kFloat;
  const std::vector<int64_t> shape{a_CV.size(1), b_CD.size(1)};
  const at::TensorOptions f32 = a_CV.options().dtype(at::kFloat).requires_grad(false);
  if (wide && first) {
    sum_VD = at::mm(a_VC, b_CD);
  } else if (wide) {
    sum_VD.addmm_(a_VC, b_CD);
  } else if (a_CV.is_cpu()) {
    static const bool amx = cpu_features().amx_bf16;
    if (first) sum_VD = at::zeros(shape, f32);
    if (!amx || !products::add_by_mkl(sum_VD, a_CV, b_CD)) products::add_in_f32(sum_VD, a_CV, b_CD);
  } else if (first) {
    sum_VD = at::empty(shape, f32);
    at::_ops::mm_dtype_out::call(a_VC, b_CD, at::kFloat, sum_VD);
  } else {
    at::_ops::addmm_dtype_out::call(sum_VD, a_VC, b_CD, at::kFloat, 1, 1, sum_VD);
  }
}

std::vector<at::Tensor> linear_products(const at::Tensor& x, at::TensorList weights_OI,
                                        at::TensorList biases_O) {
  return products::linears(x, weights_OI, biases_O, in_f32(x));
}

at::Tensor linear_product(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O) {
  return linear_products(x, w_OI, bias_O.defined() ? at::TensorList(bias_O) : at::TensorList()).front();
}

}  // namespace retort::kernels
