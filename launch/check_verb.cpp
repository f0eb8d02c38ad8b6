// Every problem of a recipe at once; without one, a short plan. Of files, only shapes and sizes are read. $RETORT_CPU
// and $RETORT_INJECT, which a run refuses where they are not understood, are refused after the recipe.
#include <fmt/format.h>

#include "core/cpu.h"
#include "core/inject.h"
#include "launch/verbs.h"
#include "recipes/read_recipe.h"
#include "recipes/stage_kind.h"

namespace retort::launch {

ExitCode check_verb(const CheckArguments& arguments) {
  const recipes::Recipe recipe = recipes::read_recipe(arguments.recipe, arguments.sets, arguments.ranks);
  cpu_features();
  Injection::from_environment();
  fmt::print("{}: no problems; {} stage(s) in {}\n", arguments.recipe, recipe.stages.size(), recipe.run.dir);
  for (const recipes::Stage& stage : recipe.stages) {
    const auto plan = recipes::kind_of(stage).plan;
    fmt::print("{} ({})\n{}", stage.name, stage.kind(), plan ? plan(recipe, stage, arguments.ranks) : "");
  }
  return ExitCode::kDone;
}

}  // namespace retort::launch
