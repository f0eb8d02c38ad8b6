// Runs small recipes on 60 prompts p with answers r, directory_/a.jsonl.
#pragma once

#include <fmt/format.h>

#include <fstream>

#include "tests/recipes/recipe_run.h"

namespace retort::recipes {

class PromptedRun : public RecipeRun {
 protected:
  PromptedRun() {
    std::ofstream lines(directory_ / "a.jsonl");
    for (int i = 0; i < 60; ++i)
      lines << fmt::format("{{\"p\": \"say {}\", \"r\": \"it is {}\"}}\n", i, i * i);
  }
};

}  // namespace retort::recipes
