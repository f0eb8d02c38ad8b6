// Models that a stage uses and does not train, on its device: where memory is refused, the error names them
// (train/holders.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/model.h"

namespace retort::recipes {

// What it multiplies with. `noun`: "the teacher".
void bring_to_device(const std::string& noun, models::Model& model, const at::Device& device);
// Does `work` with models. ConfigError: `doing` ("evaluation"), was refused memory, beside whose weights, and `remedy`.
void work_with(const std::vector<const models::Model*>& models, const at::Device& device,
               const std::string& doing, const std::string& remedy, const std::function<void()>& work);

}  // namespace retort::recipes
