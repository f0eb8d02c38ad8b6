// What a run trains: the model's parameters, then those that its objective learns beside them
// (train/objective.h), in the order of gradients, of the optimizer's state and of checkpoints. It refers to
// both, which outlive it; nothing is declared in either after it is made.
#pragma once

#include <vector>

#include "models/parameters.h"

namespace retort::train {

class Trained {
 public:
  Trained(models::Parameters& model, models::Parameters* learned = nullptr) {
    for (models::Parameter& p : model.unique()) all_.push_back(&p);
    if (learned == nullptr) return;
    for (models::Parameter& p : learned->unique()) all_.push_back(&p);
  }
  const std::vector<models::Parameter*>& all() const { return all_; }

 private:
  std::vector<models::Parameter*> all_;
};

}  // namespace retort::train
