#include "recipes/model_memory.h"

#include <fmt/format.h>

#include "models/on_device.h"
#include "train/holders.h"

namespace retort::recipes {

void work_with(const std::vector<const models::Model*>& models, const at::Device& device,
               const std::string& doing, const std::string& remedy, const std::function<void()>& work) {
  const auto weights = [&] {
    std::vector<train::Holder> out;
    for (const models::Model* model : models)
      for (train::Holder& one : train::holders_of(model->parameters())) out.push_back(std::move(one));
    return out;
  };
  train::name_holders(doing, device, weights, remedy, work);
}

void bring_to_device(const std::string& noun, models::Model& model, const at::Device& device) {
  if (device.is_cpu()) return;
  work_with({&model}, device, fmt::format("bringing {} to {}", noun, device.str()),
            "a device with more memory, or run.device: cpu, has room",
            [&] { models::move_working_to(model.parameters(), device); });
}

}  // namespace retort::recipes
