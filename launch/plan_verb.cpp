// What the training stages of a recipe would cost, by arithmetic on shapes: nothing is run, no weights are allocated.
#include <fmt/format.h>

#include "kernels/cpu_tuning.h"
#include "launch/verbs.h"
#include "recipes/read_recipe.h"
#include "recipes/stages/train_plan.h"
#include "train/trainer.h"

namespace retort::launch {
namespace {

plan::Device device_of(const std::string& name) {
  const plan::Device& device = plan::devices().at(name);
  if (!device.shared) return device;
  const kernels::CpuTuning cpu = kernels::tune_cpu();
  return plan::measured_cpu(cpu.fp32_gflops, cpu.bf16_gflops);
}

}  // namespace

ExitCode plan_verb(const PlanArguments& arguments) {
  const plan::Device device = device_of(arguments.device);
  const recipes::Recipe recipe = recipes::read_recipe(arguments.recipe, arguments.sets, arguments.ranks);
  formats::Json stages = formats::Json::array();
  std::string text;
  for (const recipes::Stage& stage : recipe.stages) {
    if (stage.find<train::TrainOptions>() == nullptr) continue;
    const auto plan = recipes::plan_train(recipe, stage, arguments.ranks, device);
    if (plan) {
      stages.push_back(recipes::plan_json(*plan));
      text += (text.empty() ? "" : "\n") + recipes::plan_text(*plan);
    } else {
      stages.push_back({{"stage", stage.name}, {"unknown", "the shape of its model or teacher"}});
      text += fmt::format("{}{}: its model's or teacher's shape is known once their files are there\n",
                          text.empty() ? "" : "\n", stage.name);
    }
  }
  check<ConfigError>(!stages.empty(), "{}: has no train stage, and plans are of those", arguments.recipe);
  if (arguments.json)
    fmt::print("{}\n", formats::Json{{"recipe", arguments.recipe}, {"stages", stages}}.dump(2));
  else
    fmt::print("{}", text);
  return ExitCode::kDone;
}

}  // namespace retort::launch
