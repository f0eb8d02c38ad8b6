// Normalisation over the last dimension, statistics in f32, output in x's dtype.
//   rms_norm    y = x * rsqrt(mean(x^2) + eps) * w          (Zhang and Sennrich 2019; unit_offset: 1 + w)
//   layer_norm  y = (x - mean) * rsqrt(var + eps) * w + b   (Ba et al. 2016)
// Any leading dimensions. f32 and bf16 on a CPU run in loops of ours both ways, which save one number a row
// (two for layer_norm) and give the same bits with any number of threads; layer_norm on CUDA is LibTorch's.
// Differentiable in all tensors. Throws ShapeError.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

at::Tensor rms_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps, bool unit_offset = false);
// x + residual, of one shape and dtype, and its rms_norm: one node, one pass each way. On the CPU the bits of the two
// one after the other.
struct AddedNorm {
  at::Tensor sum_ND, y_ND;
};
AddedNorm add_rms_norm(const at::Tensor& x_ND, const at::Tensor& residual_ND, const at::Tensor& weight_D,
                       double eps, bool unit_offset = false);
at::Tensor layer_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps);

}  // namespace retort::kernels
