// The sum of tensors of one shape and dtype, element by element, in the order of comm/tree_sum.h: f32 where they are
// narrower. It may lie in the first of them, and the others may be overwritten. Pure otherwise; any thread.
//
// A group adds what ranks have sent it. How, on devices, is given to it by whoever makes it (comm/device_comm.h): this
// room knows no kernels.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace retort::comm {

using LeafSum = std::function<at::Tensor(std::vector<at::Tensor> leaves)>;
// By LibTorch's additions, pair by pair.
at::Tensor sum_in_pairs(std::vector<at::Tensor> leaves);

}  // namespace retort::comm
