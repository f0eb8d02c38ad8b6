#include "recipes/plan_recipe.h"

#include <fmt/format.h>

#include "kernels/cpu_tuning.h"
#include "recipes/read_recipe.h"
#include "recipes/stages/train_plan.h"
#include "train/trainer.h"

namespace retort::recipes {
namespace {

using formats::Json;

plan::Device device_of(const std::string& name) {
  const plan::Device& device = plan::devices().at(name);
  if (!device.shared) return device;
  const kernels::CpuTuning cpu = kernels::tune_cpu();
  return plan::measured_cpu(cpu.fp32_gflops, cpu.bf16_gflops);
}

}  // namespace

RecipePlan plan_recipe(const std::string& recipe, const std::vector<std::string>& sets, int64_t ranks,
                       const std::string& device) {
  const plan::Device on = device_of(device);
  const Recipe read = read_recipe(recipe, sets, ranks, ReadFor::kPlan);
  RecipePlan out{"", {{"recipe", recipe}, {"stages", Json::array()}}};
  for (const Stage& stage : read.stages) {
    if (stage.find<train::TrainOptions>() == nullptr) continue;
    if (!out.text.empty()) out.text += "\n";
    if (const auto plan = plan_train(read, stage, ranks, on)) {
      out.json["stages"].push_back(plan_json(*plan));
      out.text += plan_text(*plan);
    } else {
      out.json["stages"].push_back({{"stage", stage.name}, {"unknown", "the shape of its model or teacher"}});
      out.text += stage.name + ": its model's or teacher's shape is known once their files are there\n";
    }
  }
  check<ConfigError>(!out.text.empty(), "{}: has no train stage, and plans are of those", recipe);
  return out;
}

}  // namespace retort::recipes
