#include "kernels/product_sum.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/mm_ops.h>

#include <algorithm>

#include "core/cpu.h"

// Exported by the LibTorch that is built with MKL; no header of its wheel declares it.
extern "C" __attribute__((weak)) void cblas_gemm_bf16bf16f32(int layout, int transpose_a, int transpose_b,
                                                             int m, int n, int k, float alpha,
                                                             const uint16_t* a, int lda, const uint16_t* b,
                                                             int ldb, float beta, float* c, int ldc);

namespace retort::kernels {
namespace products {

namespace {

constexpr int64_t kLeastColumns = 64;

}  // namespace

void widened(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  const int64_t rows = a_CV.size(0), columns = a_CV.size(1);
  if (rows == 0 || columns == 0) return;
  const int64_t width = std::min(columns, std::max(kLeastColumns, kPanel / rows));
  const at::Tensor wide_CD = b_CD.to(at::kFloat);
  at::parallel_for(0, (columns + width - 1) / width, 1, [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    const at::Tensor memory = at::empty({rows * width}, wide_CD.options());
    for (int64_t first = begin * width; first < std::min(columns, end * width); first += width) {
      const int64_t count = std::min(width, columns - first);
      const at::Tensor panel = memory.narrow(0, 0, rows * count).view({rows, count});
      panel.copy_(a_CV.narrow(1, first, count));
      sum_VD.narrow(0, first, count).addmm_(panel.t(), wide_CD);
    }
  });
}

bool into_f32_by_mkl(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
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

namespace {

void add_on_cpu(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  static const bool amx = cpu_features().amx_bf16;
  if (!amx || !products::into_f32_by_mkl(sum_VD, a_CV, b_CD)) products::widened(sum_VD, a_CV, b_CD);
}

}  // namespace

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
    if (first) sum_VD = at::zeros(shape, f32);
    add_on_cpu(sum_VD, a_CV, b_CD);
  } else if (first) {
    sum_VD = at::empty(shape, f32);
    at::_ops::mm_dtype_out::call(a_VC, b_CD, at::kFloat, sum_VD);
  } else {
    at::_ops::addmm_dtype_out::call(sum_VD, a_VC, b_CD, at::kFloat, 1, 1, sum_VD);
  }
}

}  // namespace retort::kernels
