// ggml's Q4_1: blocks of 32, m = f16(least), d = f16((largest - m) / 15), q in 0 .. 15, value d q + m. Codes are found with
// the numbers that the file holds; ggml's own quantizer finds them before f16 rounds, so that some of its codes differ.
#include "quantize/grid.h"

namespace retort::quantize {
namespace {

Scales fit(const at::Tensor& x, const at::Tensor&) {
  const at::Tensor blocks = x.unflatten(-1, {-1, 32});
  const at::Tensor offset = as_f16(blocks.amin(-1).clamp_min(-65504.0));
  const at::Tensor scale = as_f16((blocks.amax(-1) - offset).clamp_min(0) / 15);
  return {scale, offset, {}, offset.to(at::kHalf).view(at::kByte)};
}

}  // namespace

Grid q4_1_grid() {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(formats::GgmlType::Q4_1);
  return {.name = info.name,
          .block = info.block,
          .span = info.block,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = {kernels::RoundRule::kNearestEven, 0, 15},
          .ggml = info.type,
          .compressed = {},
          .learned = {},
          .fit = fit};
}

}  // namespace retort::quantize
