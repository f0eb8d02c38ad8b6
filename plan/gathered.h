// What ranks gather that divide working weights (parallel.shard: parameters, train/gathered_weights.h): counted by going
// through the groups of a model as its passes do. Nothing is allocated. Pure functions; any thread.
#pragma once

#include <string>
#include <vector>

#include "models/model.h"

namespace retort::plan {

// By the dtype in which they are multiplied: the working one, or f32 whatever the precision.
struct Elements {
  double matrices = 0, f32 = 0;
  double all() const { return matrices + f32; }
  double bytes(double element) const { return element * matrices + 4 * f32; }
};

struct Gathered {
  Elements divided;  // of all groups, trained and frozen
  Elements at_once;  // the most that is whole: a group and the next
  Elements brought;  // in the forward and the backward pass of a micro-batch
  Elements passed;   // in a forward pass after another, of a model that has no backward pass
  // By group, while the backward pass reads it: the group and the one before it; of the first one, which it does not read,
  // nothing.
  std::vector<Elements> backward;
};

// `base`: what borrowed matrices are kept as; those in codes stay whole. All 0 for a model that has no groups.
Gathered gathered_by(models::Model& model, const std::string& base = "f32");

}  // namespace retort::plan
