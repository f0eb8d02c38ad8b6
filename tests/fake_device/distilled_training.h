// Training from a live teacher, which binds its own working copies and moves to the device.
#pragma once

#include <utility>

#include "distill/objectives.h"
#include "tests/fake_device/training.h"

namespace retort::testing {

inline Training distilled(Training training, std::function<std::unique_ptr<models::Model>()> make_teacher,
                          std::vector<distill::LossOptions> losses) {
  training.objective = [=, dtype = training.dtype](const models::Model& student, const at::Device& device) {
    auto teacher = make_teacher();
    models::IdentityMap identity;
    models::bind_working(teacher->parameters(), identity, dtype);
    models::move_working_to(teacher->parameters(), device);
    distill::ObjectiveInput input{.model = student};
    input.teacher = distill::make_live_teacher(std::move(teacher));
    input.losses = losses;
    return distill::objectives().at("distillation").make(std::move(input));
  };
  return training;
}

inline Training llama(at::ScalarType dtype = at::kFloat) {
  return {.model = [] { return small_model(); }, .dtype = dtype};
}

inline Training distilled(std::vector<distill::LossOptions> losses, at::ScalarType dtype = at::kFloat) {
  return distilled(
      llama(dtype), [] { return small_model(9); }, std::move(losses));
}

}  // namespace retort::testing
