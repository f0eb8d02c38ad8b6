// Local gradients to global ones: the sum over all micro-batches of all ranks, as one balanced binary tree
// over the global micro-batch numbers, whose shape does not depend on ranks (comm/tree_sum.h; docs/architecture.md
// explains why). The order of calls is
//
//   begin_step();
//   for g in 0 .. G-1: begin_micro_batch(g); loss.backward() once; end_micro_batch(g);
//   finish();
//
// Where ranks divide gradients (train/owners.h), a rank takes its micro-batches in turns and every one is reduced
// (train/scattered_sum.h). One rank, one thread. Outside micro-batches backward() leaves `.grad` as always.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <vector>

#include "comm/comm.h"
#include "models/gradient_buckets.h"
#include "train/owners.h"
#include "train/trained.h"

namespace retort::train {

// A hook on each trained working copy takes its gradient out of `.grad` as backward makes it and adds it to
// the tree in f32. A parameter that gets no gradient counts as zeros, a frozen one is left out. Buckets hold
// the results in reverse declaration order, the order in which backward makes them. In the last micro-batch a
// full bucket starts its all-reduce while backward goes on; buckets start in order, the same on every rank. A
// group of one has no buckets and copies no f32 gradient.
class GradSync {
 public:
  // Puts the hooks on the working copies that bind_working() has made; their parameters, comm and owners outlive it.
  // micro_batches: this rank's G, the same on every rank. No owners: nothing is divided.
  GradSync(const Trained& trained, comm::Comm& comm, int64_t micro_batches,
           int64_t bucket_bytes = models::kBucketBytes, const Owners* owners = nullptr);
  ~GradSync();
  // Also after an exception in a hook, which surfaces from backward(), as long as the group is whole. `fingerprints`: with
  // fingerprints_G().
  void begin_step(bool fingerprints = false);
  // Before backward of micro-batch `index` of this rank. Clears `.grad`.
  void begin_micro_batch(int64_t index);
  void end_micro_batch(int64_t index);  // after it: what has no gradient by now counts as zeros
  // A trained parameter's gradient as backward() made it.
  struct Made {
    size_t parameter;  // its place among those that are not frozen
    at::Tensor gradient;
  };
  // What backward() in `pass` makes, between micro-batches, in its order. Nothing is added up.
  std::vector<Made> made_by(const std::function<void()>& pass);
  // In the place of begin, backward and end. What it was given may be other values when the next one is added.
  void add_micro_batch(int64_t index, const std::vector<Made>& made);
  // Waits for the reductions. Element i is the gradient with respect to the rows of all()[i]->working that this rank
  // owns, contiguous f32; undefined for a frozen parameter. They are valid until the next begin_step(), the caller may change them in place,
  // and no two use the same memory.
  const std::vector<at::Tensor>& finish();
  // Of each micro-batch of this rank, i64: the sum of the bits of all of its gradients, in which one flipped bit shows.
  // Beside the gradients, undefined where begin_step() was not asked for it.
  at::Tensor fingerprints_G() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::train
