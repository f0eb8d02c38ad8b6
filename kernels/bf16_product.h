// Products of bf16 matrices on a CPU. Where a processor's f32 units are the faster, or the only ones, both factors
// are widened in cache and multiplied in f32; elsewhere, and in other dtypes, LibTorch's products serve. Ours sum
// in f32 over the depth in one order, whatever the threads. M rows, K depth, N columns; of a layer I inputs, O
// outputs.
#pragma once

#include <ATen/ATen.h>

#include "core/cpu.h"

namespace retort::kernels {

// Whether bf16 products go to the f32 units: the processor decides, never a stopwatch.
bool multiplies_bf16_in_f32(const CpuFeatures& cpu);

// out_MN = a_MK b_KN, of one dtype; no gradients. out's rows are dense.
void product_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN);
at::Tensor product(const at::Tensor& a_MK, const at::Tensor& b_KN);

// x W^T + b as at::linear has it, with gradients; bias_O may be undefined.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O);

// The way through f32 whatever the processor, of bf16 on the CPU.
void product_in_f32_out(at::Tensor& out_MN, const at::Tensor& a_MK, const at::Tensor& b_KN,
                        const at::Tensor& bias_N = {});
at::Tensor linear_product_in_f32(const at::Tensor& x, const at::Tensor& w_OI, const at::Tensor& bias_O);

}  // namespace retort::kernels
