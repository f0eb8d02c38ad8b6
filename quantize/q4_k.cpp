// ggml's Q4_K: blocks of 256 with two f16 numbers, and a 6-bit scale and minimum for every 32 values, found
// by a search. After training only: the search is long, and it is not idempotent.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q4_k_grid() {
  Grid grid = ggml_formula(formats::GgmlType::Q4_K);
  grid.searches = true;
  return grid;
}

}  // namespace retort::quantize
