// y_NO = x_NI W_OI^T for few rows of x, the product of decoding token by token. Reading the weight once from
// memory is what it costs; a bf16 weight is widened as it is read, so bf16 arithmetic is not needed. Outputs
// are divided among threads. Sums are f32 in an order that depends only on I and the processor's instruction
// set: a row in a batch has the bits that it has alone, on any number of threads. No gradients. N rows, I
// inputs, O outputs.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

// Whether thin_product serves x [..., I] and w [O, I]: on a CPU, one to eight rows, a dense weight of f32 or
// bf16, and no gradient recorded.
bool is_thin(const at::Tensor& x, const at::Tensor& w);

// f32 [..., O]; x of any floating dtype, read as f32. Throws ShapeError unless is_thin().
at::Tensor thin_product(const at::Tensor& x, const at::Tensor& w);

}  // namespace retort::kernels
