// FP8 E4M3 by compressed-tensors' rules: s = amax / 448 over a row, the number nearest to w / s, halves to
// even, clamped to +-448. No GGUF type holds it.
#include "kernels/magnitudes.h"
#include "quantize/grid.h"

namespace retort::quantize {

Grid float8_grid() {
  return {.name = "fp8",
          .block = 1,
          .span = 0,
          .bits_per_weight = 8,
          .rounding = {kernels::RoundRule::kFloat8, -448, 448},
          .ggml = {},
          .compressed = CompressedScheme{"float", 8, "channel", 0},
          .learned = {},
          .fit = [](const at::Tensor& x, const at::Tensor&) -> Scales {
            return {(kernels::group_peaks(x, x.size(-1)) / 448.0).clamp_min_(1e-12), {}, {}, {}};
          }};
}

}  // namespace retort::quantize
