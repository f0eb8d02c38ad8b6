// A model as a second one of the same shape, for work that must leave the first as it is.
#pragma once

#include <memory>

#include "models/stored_model.h"
#include "models/weight_map.h"

namespace retort::artifacts {

// With the same masters (a borrowed base is shared); working weights are the caller's to bind. No scales of grids. `values`:
// of a model whose weights are stored.
std::unique_ptr<models::Model> copy_of(const models::Model& model,
                                       const models::ParameterValues& values = {});
// With the map's f32 values as masters, which working weights share: what figures are taken of. What the
// matrices' inputs are rounded to goes with it.
std::unique_ptr<models::Model> f32_copy(const models::Model& model, models::WeightMap& map);

}  // namespace retort::artifacts
