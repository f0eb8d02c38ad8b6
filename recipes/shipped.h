// The recipes that come with the binary: recipes/*.yaml as "quickstart", recipes/presets/*.yaml as
// "presets/llama3.2-1b". Embedded at build time (cmake/embed.cmake), so they are there from any directory.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace retort::recipes {

struct ShippedRecipe {
  std::string_view name, text;
};

const std::vector<ShippedRecipe>& shipped_recipes();  // in alphabetical order
const ShippedRecipe* find_shipped(std::string_view name);
std::vector<std::string> shipped_names();

}  // namespace retort::recipes
