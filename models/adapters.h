// Low-rank adapters leave a model merged: other software knows neither them nor the weights that layers
// share.
#pragma once

#include <memory>

#include "models/model.h"
#include "models/weight_map.h"

namespace retort::models {

// The shape of what merge_adapters() makes.
DecoderSpec without_adapters(DecoderSpec spec);

// The plain model that computes the same: every layer with tensors of its own, W + B A where a use had an
// adapter. Values are those that `map` makes (f32); working weights are bound to identity f32.
std::unique_ptr<Model> merge_adapters(const Model& model, WeightMap& map);

}  // namespace retort::models
