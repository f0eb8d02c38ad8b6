// What the train stages of a recipe would cost (stages/train_plan.h), for people and for programs: `retort plan`.
// Nothing is run, no weights are allocated. A stage whose shape only files know that are not there yet says so.
// ConfigError for a recipe without a train stage and for a device that is none of plan::devices().
#pragma once

#include <string>
#include <vector>

#include "formats/json.h"

namespace retort::recipes {

struct RecipePlan {
  std::string text;
  formats::Json json;  // {"recipe", "stages": [...]}
};

// `recipe` and `sets` as read_recipe() takes them; ranks 0: as the recipe says. The rates of "cpu" are measured.
RecipePlan plan_recipe(const std::string& recipe, const std::vector<std::string>& sets, int64_t ranks,
                       const std::string& device);

}  // namespace retort::recipes
