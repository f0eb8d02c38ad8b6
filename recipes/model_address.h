// The words that name a MODEL beside paths: preset:NAME (random weights, recipes/presets.h) and stage:NAME (of
// a run). Everything else is a path for artifacts/open_model.h.
#pragma once

#include <optional>
#include <string>

#include "artifacts/open_stored.h"

namespace retort::recipes {

// `run` is where stage:NAME lives (empty: no run, so it is a ConfigError); `seed` makes a preset's weights. `strict` is
// artifacts/open_model.h's.
artifacts::OpenedModel open_model(const std::string& address, const Path& run, uint64_t seed, Log& log,
                                  bool strict = false);
// Its weights where they are (artifacts/open_stored.h).
artifacts::OpenedStored open_stored(const std::string& address, const Path& run, uint64_t seed, Log& log,
                                    bool strict = false);

// Its shape without the weights (artifacts/model_shape.h); nothing where there is none yet.
std::optional<models::DecoderSpec> model_shape(const std::string& address, const Path& run);

}  // namespace retort::recipes
