// Model shapes by name, with the published parameter counts: recipes/presets/*.yaml, each a `model:` section.
#pragma once

#include <string>
#include <vector>

#include "models/decoder_spec.h"

namespace retort::recipes {

std::vector<std::string> preset_names();
models::DecoderSpec preset_spec(const std::string& name);  // ConfigError listing the known

}  // namespace retort::recipes
