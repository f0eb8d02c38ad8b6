// Every problem of a recipe at once; without one, a short plan. Of files, only shapes and sizes are read.
#include "core/log.h"
#include "launch/distill_cost.h"
#include "launch/verbs.h"
#include "models/family.h"
#include "recipes/read_recipe.h"
#include "recipes/validate.h"

namespace retort::launch {
namespace {

// 3541248 -> "3.54M".
std::string rounded(double value) { return format_rate(value); }

std::string train_plan(const recipes::Recipe& recipe, const recipes::Stage& stage, int64_t ranks) {
  const double tokens = static_cast<double>(stage.train.steps) * static_cast<double>(stage.data.batch_tokens);
  const int64_t group = ranks > 0 ? ranks : stage.parallel.ranks;
  std::string out =
      fmt::format("  {} steps of {} tokens, {} in all; {} rank(s) of {} micro-batch(es)\n", stage.train.steps,
                  stage.data.batch_tokens, rounded(tokens), group,
                  stage.data.batch_tokens / (stage.data.sequence * stage.data.micro_batch * group));
  const auto spec = recipes::spec_of(recipe, stage);
  if (!spec) return out + "  model: " + stage.model.from + "\n";
  const auto model = models::make_model(*spec, at::kMeta);
  const double flops = model->flops_per_token(stage.data.sequence);
  out += fmt::format("  {} parameters stored, {} expanded\n",
                     rounded(static_cast<double>(model->parameters().stored())),
                     rounded(static_cast<double>(model->parameters().expanded())));
  return out + fmt::format("  {:.3g} FLOPs a token, {:.3g} in all\n", flops, flops * tokens);
}

std::string distill_plan(const recipes::Recipe& recipe, const recipes::Stage& stage) {
  if (!stage.distill) return "";
  const auto cost = distill_cost(recipe, stage);
  return cost ? distill_cost_table(*cost) : "  teacher: its cost is known once its files are there\n";
}

}  // namespace

ExitCode check_verb(const CheckArguments& arguments) {
  const recipes::Recipe recipe = recipes::read_recipe(arguments.recipe, arguments.sets, arguments.ranks);
  fmt::print("{}: no problems; {} stage(s) in {}\n", arguments.recipe, recipe.stages.size(), recipe.run.dir);
  for (const recipes::Stage& stage : recipe.stages) {
    fmt::print("{} ({})\n", stage.name, stage.kind);
    if (stage.kind == "train")
      fmt::print("{}{}", train_plan(recipe, stage, arguments.ranks), distill_plan(recipe, stage));
    if (stage.kind == "capture") fmt::print("{}", capture_plan(recipe, stage));
  }
  return ExitCode::kDone;
}

}  // namespace retort::launch
