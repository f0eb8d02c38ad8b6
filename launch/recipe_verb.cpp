#include "core/nearest.h"
#include "launch/verbs.h"
#include "recipes/docs.h"
#include "recipes/shipped.h"

namespace retort::launch {

ExitCode recipe_verb(const RecipeArguments& arguments) {
  if (arguments.action == "list") {
    for (const std::string& name : recipes::shipped_names()) fmt::print("{}\n", name);
  } else if (arguments.action == "show") {
    const recipes::ShippedRecipe* recipe = recipes::find_shipped(arguments.name);
    check<ConfigError>(recipe != nullptr, "no recipe \"{}\"{} (`retort recipe list`)", arguments.name,
                       did_you_mean(arguments.name, recipes::shipped_names()));
    fmt::print("{}", recipe->text);
  } else if (arguments.action == "explain") {
    fmt::print("{}", recipes::explain_key(arguments.name));
  } else {
    fmt::print("{}", recipes::recipe_docs());
  }
  return ExitCode::kDone;
}

}  // namespace retort::launch
