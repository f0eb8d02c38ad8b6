// NVFP4 by compressed-tensors' rules: E2M1 numbers in groups of 16, each group's scale an E4M3 number over
// one f32 number of the tensor:
//   g = 448 * 6 / amax(tensor);  s = e4m3(g * amax / 6) / g;  value = number * s
// The number nearest to w / s, the smaller on ties. Codes are twice the number, so `scale` is s / 2. Since
// g is the tensor's, all columns are fitted together. GGUF's NVFP4 has no place for g in its blocks.
#include "quantize/grid.h"
#include "quantize/magnitudes.h"

namespace retort::quantize {
namespace {

constexpr int64_t kGroup = 16;

}  // namespace

Grid nvfp4_grid() {
  return {.name = "nvfp4",
          .block = kGroup,
          .span = 0,
          .rows_alone = false,
          .bits_per_weight = 4.5,
          .rounding = {formats::RoundRule::kFloat4, -12, 12},
          .ggml = {},
          .compressed = CompressedScheme{"float", 4, "tensor_group", kGroup},
          .learned = {},
          .fit = [](const at::Tensor& x, const at::Tensor&) -> Scales {
            const at::Tensor peak = group_peaks(x, kGroup);
            const at::Tensor global = 448.0 * 6.0 / peak.amax().clamp_min(1e-30);
            const at::Tensor group = global * peak / 6.0;
            const Scales one{at::ones_like(group.narrow(-1, 0, 1)), {}, {}, {}};
            formats::round_values(group, one, {formats::RoundRule::kFloat8, -448, 448}, group);
            return {group / global * 0.5, {}, {}, {}};
          }};
}

}  // namespace retort::quantize
