// models/adapters.h of weights that stay where they are.
#pragma once

#include <memory>
#include <string>

#include "models/adapters.h"
#include "models/stored_model.h"
#include "models/weight_map.h"

namespace retort::models {

// What the base is kept as other than f32 is made here, of one matrix after another.
StoredModel adapt(StoredModel base, const AdapterOptions& options, uint64_t seed);
StoredModel merge_adapters(StoredModel model, std::shared_ptr<WeightMap> map);
std::string weights_digest(const Parameters& parameters, const ParameterValues& values);

}  // namespace retort::models
