// ggml's Q8_0: blocks of 32, d = f16(amax / 127), q = round(x / (amax / 127)) half away from zero, value d q.
// Idempotent: the largest element gets +-127 and 127 d is exact in f32, so d comes back from the values.
#include "quantize/grid.h"

namespace retort::quantize {

Grid q8_0_grid() {
  using formats::GgmlType;
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(GgmlType::Q8_0);
  return {.name = info.name,
          .exports = info.type,
          .block = info.block,
          .bits_per_weight = info.bits_per_weight(),
          .quantize = [](const at::Tensor& x) { return formats::quantize_blocks(GgmlType::Q8_0, x); },
          .dequantize = formats::dequantize_blocks};
}

}  // namespace retort::quantize
