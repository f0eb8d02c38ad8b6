// Local gradients to global ones: the sum over all micro-batches of all ranks, as one balanced binary tree over
// the global micro-batch numbers. Rank r of R takes micro-batches [r G, (r+1) G); with G a power of two its own
// sum is a complete subtree and Comm's tree over ranks completes it, so how M = R G is split does not change a bit.
//
// Buckets hold gradients in reverse declaration order (the order in which backward makes them). In the last
// micro-batch a hook on each working parameter counts its bucket down and starts the bucket's all-reduce, while
// backward goes on; buckets start strictly in order, the same on every rank.
// One rank, one thread. An exception in a hook surfaces from backward().
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "comm/comm.h"
#include "models/parameters.h"

namespace retort::train {

class GradSync {
 public:
  // Puts the hooks on parameters' working copies; they must outlive it. micro_batches: this rank's G.
  GradSync(models::Parameters& parameters, comm::Comm& comm, int64_t micro_batches,
           int64_t bucket_bytes = int64_t{8} << 20);
  ~GradSync();
  void begin_step();
  void begin_micro_batch(int64_t index);  // before backward of micro-batch `index` of this rank
  void end_micro_batch(int64_t index);    // after it: folds its gradients into the tree
  // Waits for the reductions; element i is the gradient with respect to unique()[i].working, f32.
  const std::vector<at::Tensor>& finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::train
