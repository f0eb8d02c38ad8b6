// What initialise() (models/decoder.h) gives one parameter, for whoever has no room for all of them at once.
#pragma once

#include <string>

#include "models/parameters.h"

namespace retort::models {

// Of its whole shape, f32. `parameters` may be on at::kMeta.
at::Tensor initial_values(const Parameters& parameters, const Parameter& p, const std::string& kind,
                          double std, uint64_t seed);

}  // namespace retort::models
