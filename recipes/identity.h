// What a stage's work belongs to. Its identity holds the keys that decide what comes out of it, no others: not
// ranks and threads (at equal threads a rank they change no bit), nor how training is watched and saved, nor names
// of text files. Its hash adds what its inputs hold.
#pragma once

#include <string>

#include "recipes/recipe.h"

namespace retort::recipes {

// The stage as text that a YAML reader takes.
std::string stage_identity(const Recipe& recipe, const Stage& stage);
// 16 hex digits. The stages before it have results. Throws IoError.
std::string stage_hash(const Recipe& recipe, const Stage& stage);

}  // namespace retort::recipes
