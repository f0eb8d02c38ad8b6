// A model's shape by itself: the same spec, parameters, sharing and adapters.
#pragma once

#include <memory>

#include "models/model.h"

namespace retort::models {

// What it borrows is shared and must not be written; no other values are set, and on at::kMeta none are there.
std::unique_ptr<Model> shape_of(const Model& model, at::Device device);

}  // namespace retort::models
