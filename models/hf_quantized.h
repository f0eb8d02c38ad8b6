// Quantized Hugging Face folders as plain ones: where a matrix is stored as codes, NAME.weight is offered
// with its f32 values, and the parts disappear. config.json's quantization_config says which layout it is;
// each is a file of formats/: compressed_tensors.h, gptq_layout.h, bitnet_layout.h. Shapes are checked before
// a value is made. DataError names file, tensor and rule, also for what is not read: zero points, several
// schemes in one folder, other methods.
#pragma once

#include <string>

#include "formats/json.h"
#include "models/foreign.h"

namespace retort::models {

// `config`: config.json's quantization_config. `source`: for messages.
ForeignFile dequantized(ForeignFile stored, const formats::Json& config, const std::string& source);

}  // namespace retort::models
