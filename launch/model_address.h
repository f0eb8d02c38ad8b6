// The words that name a MODEL beside paths: preset:NAME (random weights, recipes/presets.h) and stage:NAME (of
// a run). Everything else is a path for artifacts/open_model.h.
#pragma once

#include <optional>
#include <string>

#include "artifacts/copy_model.h"
#include "artifacts/model_facts.h"
#include "artifacts/open_model.h"
#include "artifacts/text_shards.h"

namespace retort::launch {

using artifacts::OpenedModel;

// `run` is where stage:NAME lives (empty: no run, so it is a ConfigError); `seed` makes a preset's weights.
OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log);

// Its shape without the weights (artifacts/model_shape.h); nothing where there is none yet.
std::optional<models::DecoderSpec> model_shape(const std::string& address, const Path& run);

// stage:NAME as a path below `run`; other addresses as they are.
std::string resolve_stage(const std::string& address, const Path& run);

}  // namespace retort::launch
