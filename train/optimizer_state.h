// The optimizer's state whole, for a checkpoint, of which each rank has the rows that it owns. Rank 0 saves: it asks the
// other ranks for one tensor after another, so that no more than one is whole in memory, while they serve().
#pragma once

#include <string>

#include "comm/comm.h"
#include "formats/safetensors.h"
#include "train/optimizer.h"
#include "train/owners.h"

namespace retort::train {

class OptimizerState {
 public:
  // All three outlive it. No owners: every rank owns all.
  OptimizerState(const Optimizer& optimizer, const Owners* owners, comm::Comm& comm);

  // On rank 0: the whole tensors, those that are divided on at::kMeta.
  formats::NamedTensors tensors() const;
  at::Tensor fetch(const std::string& name) const;
  void finish() const;  // once, also after a failure: the others go on
  // On the other ranks: answers fetch() until finish().
  void serve() const;

 private:
  bool is_divided(size_t i) const;
  at::Tensor gather(size_t i) const;
  int64_t ask(int64_t number) const;

  const Owners* owners_;  // nullptr: nothing is divided
  comm::Comm& comm_;
  formats::NamedTensors state_;
  std::vector<const models::Parameter*> parameters_;
};

}  // namespace retort::train
