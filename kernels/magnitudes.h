// The largest and the mean magnitudes that scales are made of. x is f32; a value that is NaN makes its result
// NaN. One pass, parallel over groups or rows; sums run in a fixed order, so the bits depend neither on
// threads nor on the machine's vectors. On the CPU; ShapeError for tensors elsewhere.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

// max |x| of every `group` consecutive columns: [.., row] -> [.., row / group].
at::Tensor group_peaks(const at::Tensor& x, int64_t group);
// mean |x| of every row: [.., row] -> f32 [.., 1].
at::Tensor row_means(const at::Tensor& x);
// The mean of all elements: 256 f64 sums, each of every 256th, then halves of them added. A device has the same order.
double mean_in_order(const at::Tensor& x);

}  // namespace retort::kernels
