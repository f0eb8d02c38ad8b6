// A recipe's text, and the same as an assignment of --set.
#include "recipes/read_recipe.h"
#include "recipes/yaml_tree.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {

void recipe(Bytes input) {
  const std::string text(as_text(input));
  accepts<ConfigError>("fuzzed.yaml", [&] { recipes::parse_recipe(text, "fuzzed.yaml"); });
  accepts<ConfigError>("", [&] {
    recipes::Problems problems;
    recipes::Node root = recipes::parse_yaml("train: { steps: 1 }", "base.yaml", problems);
    recipes::set_value(root, text, problems);
    recipes::raise_if_any(std::move(problems));
  });
}

}  // namespace retort::fuzz
