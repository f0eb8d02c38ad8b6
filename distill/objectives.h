// The objectives that a stage can minimise: a new one is a file (train/cross_entropy.cpp) and a row here,
// where both plain training's and distillation's can be seen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/registry.h"
#include "distill/loss.h"
#include "distill/preference_loss.h"
#include "distill/reference.h"
#include "distill/teacher.h"
#include "train/embedding_noise.h"
#include "train/objective.h"

namespace retort::distill {

// What objectives are made from; each takes what it needs.
struct ObjectiveInput {
  const models::Model& model;             // as it is before the first step
  std::unique_ptr<Teacher> teacher = {};  // or a preference's live reference; nullptr: none
  std::vector<LossOptions> losses = {};
  PreferenceOptions preference = {};
  uint64_t seed = 0;
  train::EmbeddingNoise noise = {};           // preferences take none
  std::unique_ptr<Reference> reference = {};  // of a preference, instead of a live one
};

struct ObjectiveSpec {
  std::string name;
  std::string doc;          // one line
  train::Counted counted;   // what its loss is a mean over
  data::ShardKind batches;  // what its batches are rows of
  std::unique_ptr<train::Objective> (*make)(ObjectiveInput input);
};
const Registry<ObjectiveSpec>& objectives();

}  // namespace retort::distill
