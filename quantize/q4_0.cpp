// ggml's Q4_0: blocks of 32, m the element of largest magnitude, d = f16(m / -8), q in -8 .. 7, value d q.
// Idempotent: m always gets q = -8, so the values hold exactly -8 d and nothing larger, and d comes back.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q4_0_grid() {
  using formats::GgmlType;
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(GgmlType::Q4_0);
  return {.name = info.name,
          .exports = info.type,
          .block = info.block,
          .bits_per_weight = info.bits_per_weight(),
          .quantize = [](const at::Tensor& x) { return formats::quantize_blocks(GgmlType::Q4_0, x); },
          .dequantize = formats::dequantize_blocks};
}

}  // namespace retort::quantize
