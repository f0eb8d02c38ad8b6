// What a recipe must obey across its keys: references between stages, files that it names, and what each kind of
// stage checks (stage_kind.h). All findings at once.
#pragma once

#include <string>
#include <vector>

#include "recipes/stage_check.h"

namespace retort::recipes {

// Of files only shapes and tokenizers are read. `ranks`: of the launch; 0: as many as each
// stage's parallel.ranks. `alone`: a stage outside of a run (run_alone.h).
std::vector<Finding> validate(const Recipe& recipe, int64_t ranks = 0, bool alone = false);

// What validate() says of the recipe's claim.
std::vector<Finding> validate_claim(const Recipe& recipe);

// Files and directories outside the recipe that it names and that are not there, or not what they must be.
std::vector<Finding> missing_files(const Recipe& recipe);

}  // namespace retort::recipes
