// plan: what the train stages of a recipe would cost.
#include <fmt/format.h>

#include "launch/verbs.h"
#include "recipes/plan_recipe.h"

namespace retort::launch {

ExitCode plan_verb(const PlanArguments& arguments) {
  const recipes::RecipePlan plan =
      recipes::plan_recipe(arguments.recipe, arguments.sets, arguments.ranks, arguments.device);
  fmt::print("{}", arguments.json ? plan.json.dump(2) + "\n" : plan.text);
  return ExitCode::kDone;
}

}  // namespace retort::launch
