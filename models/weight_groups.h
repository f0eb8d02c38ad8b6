// The weights of a model in groups, which its passes read one after another: the forward pass in their order, the backward
// pass in reverse. Whoever keeps values elsewhere brings a group's before they are read and takes them away afterwards
// (train/gathered_weights.h). Adapters are in no group: they are small, and a head reads its own after the layers have.
// Rank and thread rule: the model's.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <utility>
#include <vector>

#include "models/parameters.h"

namespace retort::models {

class WeightGroups {
 public:
  // Group `now` is about to be read, `next` after it, and no other; -1: none.
  using Use = std::function<void(int64_t now, int64_t next)>;
  virtual ~WeightGroups() = default;
  // The parameters of each group; one may be in several. No backward pass reads the values of the first.
  virtual std::vector<std::vector<const Parameter*>> groups() const = 0;
  virtual void on_use(Use use) = 0;  // nullptr: all values are always there
};

// What the passes of a model tell whoever listens. It outlives their graphs.
class GroupReads {
 public:
  explicit GroupReads(int64_t groups) : groups_(groups) {}
  void on_use(WeightGroups::Use use) { use_ = std::move(use); }
  // Before the forward pass reads the group's values, and whoever multiplies with them outside the model.
  void forward(int64_t group) const;
  // `made`: what gradients enter the group by in the backward pass.
  void backward(int64_t group, const at::Tensor& made) const;

 private:
  int64_t groups_;
  WeightGroups::Use use_;
};

}  // namespace retort::models
