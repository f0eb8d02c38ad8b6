// Quantized Hugging Face folders as plain ones: where a matrix is stored as codes, NAME.weight is offered
// with its f32 values, and the parts disappear.
//
//   compressed-tensors   pack-quantized (4 or 8 bits), int-quantized, float-quantized (E4M3): symmetric, a
//                        scale for the tensor, each row, or groups of columns; nvfp4-pack-quantized
//   gptq                 both checkpoint formats, 2, 4 or 8 bits, any order of groups
//   bitnet               offline: ternary codes, four a byte, a scale for the tensor
//
// What activations are rounded to is not read.
// docs/formats.md has the layouts. Shapes are checked before a value is made. DataError names file, tensor
// and rule, also for what is not read: zero points, several schemes in one folder, other methods.
#pragma once

#include <string>

#include "formats/json.h"
#include "models/foreign.h"

namespace retort::models {

// `config`: config.json's quantization_config. `source`: for messages.
ForeignFile dequantized(ForeignFile stored, const formats::Json& config, const std::string& source);

}  // namespace retort::models
