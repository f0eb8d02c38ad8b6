// open_model() of weights that stay where they are (models/stored_model.h): what a rank opens that has no room for all of
// them. A folder of peft alone is set as open_model() has it, base and all.
#pragma once

#include "artifacts/open_model.h"
#include "models/stored_model.h"

namespace retort::artifacts {

struct OpenedStored {
  OpenedModel model;               // its decoder is on at::kMeta, its grids have no scales
  models::ParameterValues values;  // of the decoder's masters; none: they are set

  // As OpenedModel's; a call of one of them is the last.
  models::StoredModel take_base();
  // Its values, f32, with the adapters that it has.
  models::StoredModel take_merged();
};

OpenedStored open_stored(const Path& path, Log& log, bool strict = false);
OpenedStored new_stored(const models::DecoderSpec& spec, uint64_t seed, std::string source);

}  // namespace retort::artifacts
