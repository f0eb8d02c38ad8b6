// A model of f32 values (models/weight_map.h) beside one whose weights ranks have divided (train/gathered_weights.h), by which
// it is judged: a rank has the values of its own rows, and two groups are whole while passes read them. So it needs no
// more of a rank than a share and those two. Passes are train/passing_comm.h's. One rank, one thread.
#pragma once

#include <memory>

#include "models/model.h"
#include "models/weight_map.h"
#include "train/owners.h"

namespace retort::train {

class StreamedValues {
 public:
  // Of a model whose weights owners.gathered() has; the model and its owners outlive it. Collective.
  StreamedValues(const models::Model& model, models::WeightMap& map, const Owners& owners);
  models::Model& model() const { return *values_; }
  GatheredWeights& weights() const { return *gathered_; }

 private:
  std::unique_ptr<models::Model> values_;  // has no masters
  std::unique_ptr<GatheredWeights> gathered_;
};

}  // namespace retort::train
