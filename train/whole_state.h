// Tensors whole, for a checkpoint, of which each rank has the rows that it owns: masters and the optimizer's state. Rank 0
// saves: it asks the other ranks for one tensor after another, so that no more than one is whole in memory, while they
// serve().
#pragma once

#include <string>
#include <vector>

#include "comm/comm.h"
#include "formats/safetensors.h"
#include "train/optimizer.h"
#include "train/owners.h"

namespace retort::train {

class WholeState {
 public:
  // All outlive it, and the masters stay as they are, whole or divided. No owners: every rank has all.
  WholeState(const Trained& trained, const Optimizer& optimizer, const Owners* owners, comm::Comm& comm);

  // On rank 0: whole tensors, those that are divided on at::kMeta. What is borrowed is left out.
  formats::NamedTensors weights() const;
  formats::NamedTensors optimizer() const;
  at::Tensor fetch(const std::string& name) const;  // a divided one
  void finish() const;                              // once, also after a failure: the others go on
  // On the other ranks: answers fetch() until finish().
  void serve() const;

 private:
  struct Entry {
    std::string name;
    at::Tensor rows;                             // all of them, or this rank's
    const models::Parameter* divided = nullptr;  // whose rows ranks share out
  };
  formats::NamedTensors whole(const std::vector<Entry>& entries) const;
  int64_t ask(int64_t number) const;
  at::Tensor gather(int64_t number) const;

  const Owners* owners_;  // nullptr: nothing is divided
  comm::Comm& comm_;
  std::vector<Entry> weights_, optimizer_;
};

}  // namespace retort::train
