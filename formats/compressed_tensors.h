// Quantized matrices as compressed-tensors keeps them in a Hugging Face folder (vLLM and transformers read
// it), both ways: codes and scales to named tensors and config.json's `quantization_config`
// (docs/formats.md), and back to values. Read are symmetric weights of one scheme a folder; what activations
// are rounded to is not read. Pure functions. DataError names what is read and not understood.
#pragma once

#include <string>
#include <vector>

#include "formats/compressed_scheme.h"
#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/stored_tensors.h"
#include "kernels/block_codes.h"

namespace retort::formats {

// O out_features, I in_features, g columns that share a scale, b bits; a weight is q * scale.
//
//   pack-quantized   integers, activations as they are
//                    NAME.weight_packed  i32 [O, ceil(I b / 32)]: q + 2^(b-1) in words along a row
//                    NAME.weight_scale   f32 or f16 [O, I / g];  NAME.weight_shape  i64 [2]: O, I
//   int-quantized    8-bit integers, and the runtime rounds each token's activations to such
//   float-quantized  the same with E4M3
//                    NAME.weight i8 or f8_e4m3 [O, I];  NAME.weight_scale [O, 1]
//   nvfp4-pack-quantized  NAME.weight_packed  u8 [O, I / 2]: E2M1 numbers, the first of two in the low bits
//                    NAME.weight_scale   f8_e4m3 [O, I / 16];  NAME.weight_global_scale f32 [1], which
//                    divides
//
// The tensors that take the place of NAME.weight, by the last part of their names. `activations`: a runtime
// rounds them too. NVFP4's codes are twice their number, and its header is the global scale. Scales are
// stored as f16 when `dtype` is that and holds them exactly, else as f32.
NamedTensors pack_compressed(const CompressedScheme& scheme, const kernels::BlockCodes& matrix_OI,
                             bool activations, at::ScalarType dtype);
// config.json's quantization_config; `plain` are the modules that stay as they are, beside the head.
Json compressed_config(const CompressedScheme& scheme, bool activations,
                       const std::vector<std::string>& plain);

// The folder's tensors, each matrix as NAME.weight with its f32 values in the place of its parts.
StoredTensors unpack_compressed(StoredTensors stored, const Json& config, const std::string& source);

}  // namespace retort::formats
