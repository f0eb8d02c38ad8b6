// What a recipe must obey across its keys: arithmetic of the batch, references between stages, sizes that fit
// together. Pure: nothing is read but the recipe and the shipped presets. All findings at once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace retort::recipes {

struct Finding {
  std::string stage;              // "" for the run as a whole
  std::vector<std::string> keys;  // where it shows first, then what else takes part
  std::string text;
};

// `ranks`: of the launch; 0: as many as each stage's parallel.ranks.
std::vector<Finding> validate(const Recipe& recipe, int64_t ranks = 0);

// What validate() says of the recipe's claim.
std::vector<Finding> validate_claim(const Recipe& recipe);
// Numbers that a stage of a kind may leave in its result.json, for claims.
std::vector<std::string> figures_of(const std::string& kind);

bool takes(const Stage& stage, const char* section);  // stages of its kind have the section

// A reference of one of a stage's keys, and the kinds of stage that can answer it.
struct Reference {
  std::string key, value;
  std::vector<std::string> kinds;
};
std::vector<Reference> references_of(const Stage& stage);

// Files and directories outside the recipe that it names and that are not there, or not what they must be.
std::vector<Finding> missing_files(const Recipe& recipe);

// The shape of a stage's model, through stage and preset references; nothing when only a file knows it.
std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const Stage& stage);
std::optional<models::DecoderSpec> spec_of(const Recipe& recipe, const std::string& reference);

}  // namespace retort::recipes
