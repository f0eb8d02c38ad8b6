// AutoGPTQ's layout of quantized matrices in a Hugging Face folder, both ways: codes and scales to named
// tensors and config.json's `quantization_config` (docs/formats.md; quantize_config.json beside it repeats
// it), and back to values. Written are 4 and 8 bits, with zeros in the middle and groups in the columns'
// order; read are 2 bits, other zeros and any order too. Pure functions.
#pragma once

#include <string>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/stored_tensors.h"
#include "kernels/block_codes.h"

namespace retort::formats {

// O out_features, I in_features, g columns that share a scale, b bits; a weight is (code - zero) * scale.
//
//   NAME.qweight  i32 [I b / 32, O]: q + 2^(b-1) in words down a column
//   NAME.scales   f16 [I / g, O];  NAME.g_idx  i32 [I]: the group of each column
//   NAME.qzeros   i32 [I / g, O b / 32]: 2^(b-1); in the first version ("gptq") less one
enum class GptqVersion { kFirst, kSecond };  // "gptq", "gptq_v2"

// The tensors that take the place of NAME.weight, by the last part of their names. ConfigError for scales
// that are no f16 numbers.
NamedTensors pack_gptq(const kernels::BlockCodes& matrix_OI, int64_t bits, GptqVersion version);
// `group_size`: columns that share a scale; -1: all.
Json gptq_config(int64_t bits, int64_t group_size, GptqVersion version);

// The folder's tensors, each matrix as NAME.weight with its f32 values in the place of its parts. DataError.
StoredTensors unpack_gptq(StoredTensors stored, const Json& config, const std::string& source);

}  // namespace retort::formats
