#include "recipes/presets.h"

#include "core/error.h"
#include "core/nearest.h"
#include "recipes/model_options.h"
#include "recipes/shipped.h"
#include "recipes/yaml_section.h"

namespace retort::recipes {
namespace {

constexpr std::string_view kFolder = "presets/";

struct PresetFile {
  ModelOptions model;
  void describe(Section& s) { s.section("model", model, "the shape"); }
};

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const ShippedRecipe& recipe : shipped_recipes())
    if (recipe.name.starts_with(kFolder)) names.emplace_back(recipe.name.substr(kFolder.size()));
  return names;
}

models::DecoderSpec preset_spec(const std::string& name) {
  const ShippedRecipe* shipped = find_shipped(std::string(kFolder) + name);
  if (shipped == nullptr) {
    const std::vector<std::string> known = preset_names();
    fail<ConfigError>("unknown preset \"{}\"{}; known: {}", name, did_you_mean(name, known),
                      fmt::join(known, ", "));
  }
  Problems problems;
  PresetFile file;
  read_section(parse_yaml(shipped->text, "preset:" + name, problems), file, problems);
  raise_if_any(std::move(problems));
  return file.model.spec();
}

}  // namespace retort::recipes
