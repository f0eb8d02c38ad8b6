// A model's matrices as codes in a Hugging Face folder: which of them are on a grid, whether a layout holds
// it, and the packer that save_hf_folder() asks for each. The layouts' tensors and their keys in config.json
// are formats/compressed_tensors.h and formats/gptq_layout.h. Embedding and head keep the folder's dtype. Pure
// functions. ConfigError for what a layout cannot hold, with what would do, before anything is written.
#pragma once

#include <string>
#include <vector>

#include "models/hf_folder.h"
#include "quantize/packing_map.h"

namespace retort::quantize {

// Why a layout cannot hold the grid, with the grids that it holds; "" when it can.
std::string layout_misfit(const std::string& layout, const Grid& grid);

// Why it cannot hold the model on the map's grids, of which no values are read; "" when it can.
std::string folder_misfit(const std::string& layout, const models::Model& model, const PackingMap& map,
                          bool activations);

// What writing `model` in the layout adds to a folder: the packer, config.json's keys, and for gptq a file.
// All matrices with a grid must have one and the same; gptq wants every matrix on it. `activations`: the
// runtime rounds them to the weights' type too (fp8 always means it). Scales are f16 in an f16 folder where
// f16 holds them exactly, else f32.
models::HfExtras pack_for_hf(const std::string& layout, const models::Model& model, const PackingMap& map,
                             bool activations, at::ScalarType dtype);

}  // namespace retort::quantize
