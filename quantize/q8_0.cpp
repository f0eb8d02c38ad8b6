// ggml's Q8_0: blocks of 32, d = f16(amax / 127), q = round(x / (amax / 127)) half away from zero, value d q.
// Idempotent: the largest element gets +-127 and 127 d is exact in f32, so d comes back from the values.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q8_0_grid() { return ggml_formula(formats::GgmlType::Q8_0); }

}  // namespace retort::quantize
