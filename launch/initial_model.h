// The model that a train stage begins with: the weights of a MODEL (model.from), a student cut from a teacher
// (model.init, distill/student.h), or random ones. The same on every rank. Masters are set; working weights
// are the caller's to bind.
#pragma once

#include <memory>
#include <vector>

#include "data/batch_stream.h"
#include "launch/stages.h"

namespace retort::launch {

struct StartingModel {
  std::unique_ptr<models::Model> model;
  formats::Json generation = formats::Json::object();  // of model.from (models/generation_facts.h)
};

// `sources`: what the stage trains on; a teacher's importance is measured on it.
StartingModel initial_model(const StageContext& context, const std::vector<data::Source>& sources, Log& log);

}  // namespace retort::launch
