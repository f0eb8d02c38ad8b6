// The largest magnitudes of groups of columns: what scales are made of.
#pragma once

#include <ATen/ATen.h>

namespace retort::quantize {

// max |x| of every `group` consecutive columns of f32 x on the CPU: [.., row] -> [.., row / group]. NaN
// where one of them is. The same as at::amax of the absolute values, in one pass. Parallel over groups.
at::Tensor group_peaks(const at::Tensor& x, int64_t group);

}  // namespace retort::quantize
