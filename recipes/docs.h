// What the recipe's keys mean, generated from the same walk that reads them: docs/recipe.md and
// `retort recipe explain`.
#pragma once

#include <string>

namespace retort::recipes {

std::string recipe_docs();                        // the whole of docs/recipe.md
std::string explain_key(const std::string& key);  // "" lists the sections; ConfigError with the nearest key

}  // namespace retort::recipes
