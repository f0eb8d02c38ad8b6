// A grid: tensor <-> codes and scales, and the file type that holds exactly those. One file and one row each.
// What training evaluates is dequantize(quantize(master)) in f32; what an export packs are the same codes, so
// the file holds the weights that were judged, bit for bit. Pure, deterministic functions of dense f32 CPU
// tensors: equal input gives equal codes, on any thread and any machine.
#pragma once

#include <functional>
#include <string>

#include "core/registry.h"
#include "formats/ggml_blocks.h"

namespace retort::quantize {

struct Grid {
  std::string name;           // "q4_0"
  formats::GgmlType exports;  // the GGUF type that stores its codes
  int64_t block = 0;          // a row's length must divide by it
  double bits_per_weight = 0;
  std::function<formats::BlockCodes(const at::Tensor&)> quantize;  // f32 [.., in] -> codes
  std::function<at::Tensor(const formats::BlockCodes&)> dequantize;
};

const Registry<Grid>& grids();

// Why rows of `in_features` do not fit the grid, with the grids that would; "" when they do.
std::string misfit(const Grid& grid, const std::string& tensor, int64_t in_features);
// ConfigError with that text unless they do.
void check_fits(const Grid& grid, const std::string& tensor, int64_t in_features);

}  // namespace retort::quantize
