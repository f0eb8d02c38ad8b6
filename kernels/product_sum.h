// sum_VD += a_CV^T b_CD in f32, chunk after chunk of rows: the gradient of a weight over a long walk. Products of two
// bf16 numbers are exact in f32, and no chunk's sum is rounded before it joins the others.
//
// On the CPU bf16 operands are widened a panel of columns at a time, into cache, and multiplied in f32: LibTorch's own
// product of bf16 rounds its result, is no faster on AVX-512 processors, and is slow on those without bf16 units. Where
// there is AMX it is MKL's bf16 product into f32. On a device it is LibTorch's product with a dtype of its own for the
// result. C rows, V and D columns.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

// Undefined `sum_VD` begins at 0. a_CV and b_CD: both f32, or both bf16.
void add_product(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);

// The two forms of bf16 on the CPU; into_f32_by_mkl() is false where the library has none.
namespace products {
inline constexpr int64_t kPanel = int64_t{1} << 18;  // elements that a thread widens at a time: 1 MiB
void widened(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);
bool into_f32_by_mkl(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);
}  // namespace products

}  // namespace retort::kernels
