// A model's backward pass in stages: the head, the two halves of each layer from the last to the first, the embedding. What
// a stage reads of the kept activations goes when it is done, and what it multiplies with gets a gradient there. Nothing is
// allocated. Pure functions; any thread.
#pragma once

#include <vector>

#include "models/model.h"
#include "plan/activations.h"
#include "plan/owned_rows.h"

namespace retort::plan {

// Of a trained parameter, in declaration order. Of a grid's scale backward makes none.
struct MadeGradient {
  Rows rows;
  bool f32 = true;     // whatever the precision
  bool table = false;  // looked up: made in f32 first
};

struct BackwardStage {
  double kept = 0;     // bytes a token
  size_t group = 0;    // that it reads (models/weight_groups.h)
  bool layer = false;  // with the widest moment of a layer
  // Numbers of gradients, in their order; a shared one is whole in the last stage that has it.
  std::vector<size_t> makes = {};
};

struct BackwardPass {
  std::vector<MadeGradient> gradients;
  std::vector<BackwardStage> stages;
};

BackwardPass backward_pass(const models::Model& model, const ActivationOptions& options);

}  // namespace retort::plan
