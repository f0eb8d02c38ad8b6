// The model that a train stage begins with: the weights of a MODEL (model.from), a student cut from a teacher
// (model.init, distill/student.h), or random ones. The same on every rank. Masters are set; working weights
// are the caller's to bind.
#pragma once

#include <memory>

#include "launch/stages.h"

namespace retort::launch {

// `text`: the stage's training shards, on which a teacher's importance is measured.
std::unique_ptr<models::Decoder> initial_model(const StageContext& context,
                                               std::shared_ptr<const data::TokenShards> text, Log& log);

}  // namespace retort::launch
