// The micro-batches of a step that a rank takes. Of R ranks with G each, rank r's i-th is, of all R G,
//
//   a run      r G + i: it keeps the sum of the run (comm/tree_sum.h)
//   in turns   i R + r: after every turn the gradients go to their owners (train/scattered_sum.h); of groups of S ranks,
//              each of which has all owners, (r / S) G S + i S + r % S
//
// Both are summed by one tree over the numbers. One rank, one thread.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "comm/comm.h"

namespace retort::train {

class Owners;

class MicroBatches {
 public:
  MicroBatches(comm::Comm& comm, int64_t each, const Owners* owners);  // nullptr: nothing is divided
  int64_t each() const { return each_; }
  int64_t all() const { return comm_.size() * each_; }
  int64_t number(int64_t index) const;  // of this rank's `index`-th
  // Collective: the sum over all, from this rank's of one shape.
  at::Tensor sum(const std::vector<at::Tensor>& mine) const;

 private:
  comm::Comm& comm_;
  int64_t each_;
  int64_t turn_;  // ranks that take turns
};

}  // namespace retort::train
