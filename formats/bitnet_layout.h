// The layout of Microsoft's published BitNet folders (quant_method bitnet, quantization_mode offline), read
// only. O out_features, I in_features.
//
//   NAME.weight  u8 [O / 4, I]: byte r of a column holds q + 1 of rows r, r + O/4, r + O/2 and r + 3 O/4, two
//                bits each from the lowest; q is -1, 0 or 1
//   NAME.weight_scale  [1]: a weight is q * scale with linear_class autobitlinear, and q / scale with
//                bitlinear, the default
#pragma once

#include <string>

#include "formats/json.h"
#include "formats/stored_tensors.h"

namespace retort::formats {

// The folder's tensors, each matrix as NAME.weight with its f32 values in the place of its parts. `config`:
// quantization_config. DataError.
StoredTensors unpack_bitnet(StoredTensors stored, const Json& config, const std::string& source);

}  // namespace retort::formats
