// y_NO = x_NI W_OI^T for few rows of x: what decoding token by token is made of. The weight is read once,
// from memory, and nothing else should cost anything, so a bf16 weight is widened where it is read: bf16
// arithmetic is not needed. Outputs are divided among threads. Sums are f32 in an order that depends on I and
// the processor's instruction set alone: not on N, so a row in a batch has the bits that it has alone, nor on
// threads. No gradients. N rows, I inputs, O outputs.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

// Whether thin_product serves x [..., I] and w [O, I]: on a CPU, one to eight rows, a dense weight of f32 or
// bf16, and no gradient recorded.
bool is_thin(const at::Tensor& x, const at::Tensor& w);

// f32 [..., O]; x of any floating dtype, read as f32. Throws ShapeError unless is_thin().
at::Tensor thin_product(const at::Tensor& x, const at::Tensor& w);

}  // namespace retort::kernels
