#include "train/leaf_sum.h"

#include "comm/leaf_sum.h"
#include "kernels/cuda_ops.h"

namespace retort::train {

at::Tensor sum_leaves(std::vector<at::Tensor> leaves) {
  const kernels::cuda::Ops* const ops = kernels::cuda::ops_for(leaves.front());
  if (ops == nullptr || leaves.size() == 1 || leaves.size() > kernels::cuda::kMostLeaves)
    return comm::sum_in_pairs(std::move(leaves));
  return ops->tree_sum(leaves);
}

}  // namespace retort::train
