// Addresses in a recipe: stage:NAME (an earlier stage), preset:NAME (a shape with random weights), or a path.
#pragma once

#include <optional>
#include <string>

#include "core/file.h"

namespace retort::recipes {

inline constexpr const char* kModelForms =
    "checkpoint, stage or run directory, HF folder, .gguf file, preset:NAME or stage:NAME";

// "stage:teacher" -> "teacher"; nothing for other addresses.
std::optional<std::string> stage_of(const std::string& address);
std::optional<std::string> preset_of(const std::string& address);  // "preset:NAME"
// stage:NAME as its directory below `run`, where `run` is not empty (ConfigError); other addresses as they are.
Path path_of(const std::string& address, const Path& run);

}  // namespace retort::recipes
