// Quantized matrices in Hugging Face folders, as transformers and vLLM load them. O out, I in, g columns of a
// group, b bits; codes q are integers of b bits around 0 (or E4M3 numbers), a weight is q * scale.
//
//   compressed-tensors
//     pack-quantized   integers, activations as they are
//                      NAME.weight_packed  i32 [O, ceil(I b / 32)]: q + 2^(b-1) in words along a row
//                      NAME.weight_scale   f32 or f16 [O, I / g];  NAME.weight_shape  i64 [2]: O, I
//     int-quantized    8-bit integers, and the runtime rounds each token's activations to such
//     float-quantized  the same with E4M3
//                      NAME.weight i8 or f8_e4m3 [O, I];  NAME.weight_scale [O, 1]
//     nvfp4-pack-quantized  NAME.weight_packed  u8 [O, I / 2]: E2M1 numbers, the first of two in the low bits
//                      NAME.weight_scale   f8_e4m3 [O, I / 16];  NAME.weight_global_scale f32 [1], which
//                      divides
//   gptq, gptq_v2      integers of 4 or 8 bits (AutoGPTQ's layout)
//                      NAME.qweight  i32 [I b / 32, O]: q + 2^(b-1) in words down a column
//                      NAME.scales   f16 [I / g, O];  NAME.g_idx  i32 [I]: i / g
//                      NAME.qzeros   i32 [I / g, O b / 32]: 2^(b-1); in the first version less one
//
// config.json says the rest in `quantization_config` (docs/formats.md). Embedding and head keep the folder's
// dtype. Pure functions. ConfigError for what a layout cannot hold, with what would do, before anything is
// written.
#pragma once

#include <string>
#include <vector>

#include "models/hf_folder.h"
#include "quantize/packing_map.h"

namespace retort::quantize {

std::vector<std::string> hf_layout_names();
// Why a layout cannot hold the grid, with the grids that it holds; "" when it can.
std::string layout_misfit(const std::string& layout, const Grid& grid);

// What writing `model` in the layout adds to a folder: the packer, config.json's keys, and for gptq a file.
// All matrices with a grid must have one and the same; gptq wants every matrix on it. `activations`: the
// runtime rounds them to the weights' type too (fp8 always means it). Scales are f16 in an f16 folder where
// f16 holds them exactly, else f32.
models::HfExtras pack_for_hf(const std::string& layout, const models::Decoder& model, const PackingMap& map,
                             bool activations, at::ScalarType dtype);

}  // namespace retort::quantize
