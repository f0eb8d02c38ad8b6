// What `retort quantize --scheme NAME` means: a method (post_training.h) and the grids (grid.h). Names are
// METHOD-GRID, or METHOD-SCHEME in the words of compressed-tensors: w4a16 is weights of 4 bits (groups of 128
// columns; -g32: of 32) beside 16-bit activations, nvfp4a16 NVFP4 weights beside them, w8a8 and fp8 round
// activations too, per token, in the runtime that loads the folder.
#pragma once

#include <string>

#include "core/registry.h"
#include "quantize/quantize_map.h"

namespace retort::quantize {

struct Scheme {
  std::string name;       // "gptq-q4_0"
  std::string method;     // of method_names()
  std::string grid;       // of matrices
  std::string embedding;  // grid of the embedding and of a head of its own; none: f32
  bool activations = false;
  QuantizeOptions grids() const;
};
const Registry<Scheme>& schemes();

}  // namespace retort::quantize
