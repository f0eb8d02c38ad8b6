// What the frozen matrices of a base can be kept as: less memory, and products of the values that the codes
// have. A row is a name and how a matrix becomes codes; the forms themselves are of formats/.
#pragma once

#include <string>
#include <vector>

#include "models/stored_model.h"

namespace retort::models {

// "f32": as they are, and what retort can make of a matrix.
std::vector<std::string> frozen_code_names();

// Rounds every borrowed matrix; tables, norms and biases stay. On at::kMeta it only checks. ConfigError
// where a row does not divide into the form's blocks. `values`: a StoredModel's, of which codes are made there too.
void keep_as_codes(Parameters& parameters, const std::string& name, const ParameterValues& values = {});

}  // namespace retort::models
