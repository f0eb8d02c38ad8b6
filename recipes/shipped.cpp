#include "recipes/shipped.h"

namespace retort::recipes {

const ShippedRecipe* find_shipped(std::string_view name) {
  for (const ShippedRecipe& recipe : shipped_recipes())
    if (recipe.name == name) return &recipe;
  return nullptr;
}

std::vector<std::string> shipped_names() {
  std::vector<std::string> names;
  for (const ShippedRecipe& recipe : shipped_recipes()) names.emplace_back(recipe.name);
  return names;
}

}  // namespace retort::recipes
