// The sum of comm/leaf_sum.h where tensors lie: by one kernel where their device has one (kernels/cuda/sums.cu), which
// reads each leaf once, else pair by pair. The bits are the same. It may lie in the first leaf, and the others may be
// overwritten; any thread.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace retort::train {

at::Tensor sum_leaves(std::vector<at::Tensor> leaves);

}  // namespace retort::train
