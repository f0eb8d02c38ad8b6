// Local gradients to global ones: the sum over all micro-batches of all ranks, as one balanced binary tree
// over the global micro-batch numbers (comm/tree_sum.h). Rank r of R takes micro-batches [r G, (r+1) G); with
// G a power of two its own sum is a complete subtree and Comm's tree over ranks completes it, so how M = R G
// is split does not change a bit. A parameter without a gradient counts as zeros.
//
// A hook on each working parameter takes its gradient out of `.grad` as backward makes it, and folds it into
// the tree in f32. Buckets hold the results in reverse declaration order (the order in which backward makes
// them). In the last micro-batch a bucket starts its all-reduce as soon as it is full, while backward goes
// on; buckets start strictly in order, the same on every rank. A group of one has no buckets and copies
// nothing that is f32 already.
//
//   begin_step();
//   for g in 0 .. G-1: begin_micro_batch(g); loss.backward() once; end_micro_batch(g);
//   finish();
//
// One rank, one thread. Outside micro-batches backward() leaves `.grad` as always. An exception in a hook
// surfaces from backward(); after one, begin_step() starts anew if the group is still whole.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "comm/comm.h"
#include "models/parameters.h"

namespace retort::train {

class GradSync {
 public:
  // Puts the hooks on parameters' working copies, which bind_working() has made; parameters and comm outlive
  // it. micro_batches: this rank's G, the same on every rank.
  GradSync(models::Parameters& parameters, comm::Comm& comm, int64_t micro_batches,
           int64_t bucket_bytes = int64_t{8} << 20);
  ~GradSync();
  void begin_step();
  void begin_micro_batch(
      int64_t index);                   // before backward of micro-batch `index` of this rank; clears `.grad`
  void end_micro_batch(int64_t index);  // after it: what got no gradient by now counts as zeros
  // Waits for the reductions; element i is the gradient with respect to unique()[i].working, f32. Valid until
  // the next begin_step(), the caller's to change in place, and no two share storage they both use.
  const std::vector<at::Tensor>& finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::train
