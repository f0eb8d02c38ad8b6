// ggml's Q6_K: blocks of 256 with an f16 number, and an 8-bit scale for every 16 values, found by a search.
// After training only, as q4_k.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q6_k_grid() {
  Grid grid = ggml_formula(formats::GgmlType::Q6_K);
  grid.searches = true;
  return grid;
}

}  // namespace retort::quantize
