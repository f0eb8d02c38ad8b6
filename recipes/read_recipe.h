// From a recipe file and `--set` to a checked Recipe: merge, read, validate, and report every problem at
// once.
#pragma once

#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace retort::recipes {

// What a recipe is read for. A plan needs neither the texts, the documents of tasks nor the device of a run.
enum class ReadFor { kRun, kPlan };

// `file`: a path, or a shipped recipe's name. `ranks`: of the launch; 0: as the recipe says.
// Throws ConfigError with one line a problem: file:line:column: key: rule, what came.
Recipe read_recipe(const std::string& file, const std::vector<std::string>& sets = {}, int64_t ranks = 0,
                   ReadFor purpose = ReadFor::kRun);

// The same from text; `base:` must be a shipped recipe then.
Recipe parse_recipe(const std::string& text, const std::string& source,
                    const std::vector<std::string>& sets = {}, int64_t ranks = 0,
                    ReadFor purpose = ReadFor::kRun);

}  // namespace retort::recipes
