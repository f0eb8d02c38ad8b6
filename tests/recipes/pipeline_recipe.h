// A recipe that is sound, for tests that spoil it: a text, a teacher, and a student that is distilled from it.
#pragma once

#include <string>
#include <vector>

#include "recipes/data_options.h"
#include "recipes/distill_options.h"
#include "recipes/validate.h"

namespace retort::recipes {

inline Recipe pipeline() {
  Recipe recipe;
  recipe.run.text = {"/etc/passwd"};
  Stage text("prepare", "text"), teacher("train", "teacher"), student;
  teacher.get<DataOptions>().train = "stage:text";
  student = teacher;
  student.name = "student";
  student.get<DistillSection>().emplace();
  student.get<DistillSection>()->teacher.model = "stage:teacher";
  student.get<DistillSection>()->losses.push_back({.fn = "forward_kl"});
  recipe.stages = {text, teacher, student};
  return recipe;
}

inline std::vector<std::string> findings_of(const Recipe& recipe, int64_t ranks = 0) {
  std::vector<std::string> out;
  for (const Finding& f : validate(recipe, ranks))
    out.push_back(fmt::format("{} {}: {}", f.stage, f.keys[0], f.text));
  return out;
}

}  // namespace retort::recipes
