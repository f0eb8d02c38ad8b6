// Products of matrices. On a CPU whose f32 units are the faster, or the only ones, bf16 factors are widened in cache
// and multiplied in f32; elsewhere, and in other dtypes, LibTorch's products serve. A sum over chunks of rows stays in
// f32: LibTorch would round each chunk's. Ours sum over the depth in one order, whatever the threads. M rows, K depth,
// N columns; of a layer I inputs, O outputs; of a chunk C rows, V and D columns. Throws ShapeError.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "core/cpu.h"

namespace retort::kernels {

// Whether bf16 products go to the f32 units: the processor decides, never a stopwatch.
bool multiplies_bf16_in_f32(const CpuFeatures& cpu);
// Whether bf16 products are the faster ones, which `precision: auto` then takes.
bool prefers_bf16(const CpuFeatures& cpu);

// out_MN = a_MK b_KN, of one dtype; no gradients. out's rows are dense.
void product_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);
at::Tensor product(const at::Tensor& a_MK, const at::Tensor& b_KN);

// sum_VD += a_CV^T b_CD in f32, of f32 or bf16: the gradient of a weight, chunk after chunk. Undefined `sum_VD` begins
// at 0.
void add_product(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);

// x W^T + b as at::linear has it, with gradients; bias_O may be undefined.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O);

// Of several weights, each with a bias or none of them: one node, which adds each product's part of the gradient of x
// where the sum lies.
std::vector<at::Tensor> linear_products(const at::Tensor& x, at::TensorList weights_OI,
                                        at::TensorList biases_O = {});

// The ways that a processor may choose, of bf16 on the CPU. MKL's serves where there is AMX, and is false where the
// library has none.
namespace products {
void in_f32_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                const at::Tensor& bias_N = {});
std::vector<at::Tensor> linears(const at::Tensor& x, at::TensorList weights_OI, at::TensorList biases_O,
                                bool in_f32);
void add_in_f32(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);
bool add_by_mkl(const at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD);
}  // namespace products

}  // namespace retort::kernels
