#include "recipes/identity.h"

#include <algorithm>

#include "core/digest.h"
#include "recipes/inputs.h"
#include "recipes/print_section.h"

namespace retort::recipes {

std::string stage_identity(const Recipe& recipe, const Stage& stage) {
  const StageKind& kind = kind_of(stage);
  const std::vector<Input> inputs = inputs_of(recipe, stage);
  const bool seeded = kind.seeded || std::any_of(inputs.begin(), inputs.end(), [](const Input& input) {
                        return preset_of(input.address).has_value();  // whose weights it makes
                      });
  Stage same = stage;
  if (kind.forget != nullptr) kind.forget(same);
  return fmt::format("# one stage, resolved{}\n{}",
                     seeded ? fmt::format("; run.seed: {}", recipe.run.seed) : "", print_section(same));
}

std::string stage_hash(const Recipe& recipe, const Stage& stage) {
  std::string text = stage_identity(recipe, stage);
  for (const Input& input : inputs_of(recipe, stage)) text += state_of(input, recipe.run.dir);
  return hex(xxh3(text));
}

}  // namespace retort::recipes
