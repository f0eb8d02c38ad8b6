// Low-rank adapters leave a model merged: other software knows neither them nor the weights that layers
// share.
#pragma once

#include <memory>

#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::models {

// The plain model that computes the same: every layer with tensors of its own, W + B A where a use had an
// adapter. Values are those that `map` makes (f32); working weights are bound to identity f32.
std::unique_ptr<Decoder> merge_adapters(const Decoder& model, WeightMap& map);

}  // namespace retort::models
