// The largest and the mean magnitudes that scales are made of. x: f32 on the CPU. NaN where a value is.
// One pass, parallel over groups or rows; sums run in a fixed order, so the bits depend neither on threads
// nor on the machine's vectors.
#pragma once

#include <ATen/ATen.h>

namespace retort::quantize {

// max |x| of every `group` consecutive columns: [.., row] -> [.., row / group].
at::Tensor group_peaks(const at::Tensor& x, int64_t group);
// mean |x| of every row: [.., row] -> f32 [.., 1].
at::Tensor row_means(const at::Tensor& x);

}  // namespace retort::quantize
