// The model that a train stage begins with: the weights of a MODEL (model.from), a student cut from a teacher
// (model.init, distill/student.h), or random ones. With an adapters section model.from is frozen below new
// adapters, and its own are continued when they are the same; without the section they are merged. The same
// on every rank. Masters are set; working weights are the caller's to bind.
#pragma once

#include <memory>
#include <vector>

#include "data/batch_stream.h"
#include "models/stored_model.h"
#include "recipes/stage_context.h"

namespace retort::recipes {

struct StartingModel {
  std::unique_ptr<models::Model> model;
  // Of model.from (models/generation_facts.h), with the marks that end turns of the text.
  formats::Json generation = formats::Json::object();
  std::optional<artifacts::AdapterFacts> adapters = {};  // of a stage with adapters
  artifacts::Origin origin = {};
  models::ParameterValues values = {};  // of a model whose weights are stored; none: masters are set
};

// The MODEL that model.init cuts from; "" without model.init.
std::string init_source(const Stage& stage);
// Its shape as it is cut from, without adapters; nothing where it is not known yet.
std::optional<models::DecoderSpec> init_spec(const Recipe& recipe, const Stage& stage);

// Whether no rank needs all weights of a divided model to start (parallel.shard: parameters): all but those that are cut from
// a teacher, and a base with adapters in a folder of peft.
bool starts_divided(const Stage& stage);

// Why a model with adapters of its own cannot get others; "" where they are the same, and are continued.
std::string adapters_misfit(const models::AdapterOptions& own, const models::AdapterOptions& wanted,
                            const std::string& source);

// `sources`: what the stage trains on; a teacher's importance is measured on it. `divided`: no rank has room for all of the
// model, which comes with its weights stored, but for one that is cut from a teacher and adapters in a folder of peft.
StartingModel initial_model(const StageContext& context, const std::vector<data::Source>& sources,
                            bool divided, Log& log);

}  // namespace retort::recipes
