// MXFP4 (OCP Microscaling Formats 1.0) by ggml's formula: blocks of 32, scale 2^(floor(log2 amax) - 2),
// values 0 .5 1 1.5 2 3 4 6 and their negatives times it. Idempotent.
#include "quantize/grid.h"

namespace retort::quantize {

Grid mxfp4_grid() { return ggml_formula(formats::GgmlType::MXFP4); }

}  // namespace retort::quantize
