// ggml's Q4_0: blocks of 32, m the element of largest magnitude, d = f16(m / -8), q in -8 .. 7, value d q.
// Idempotent: m always gets q = -8, so the values hold exactly -8 d and nothing larger, and d comes back.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q4_0_grid() { return ggml_formula(formats::GgmlType::Q4_0); }

}  // namespace retort::quantize
