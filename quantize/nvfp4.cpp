// NVFP4 in compressed-tensors' layout: E2M1 numbers in groups of 16, each group's scale an E4M3 number over
// one f32 number of the tensor.
//   g = 448 * 6 / amax(tensor);  s = e4m3(g * (amax(group) / 6)) / g;  value = number * s
// The number nearest to w / s, ties to the even one: .75 -> 1. Codes
// are twice the number, so `scale` is s / 2; the header is g, f32, for every row. Since g is the tensor's,
// all columns are fitted together. GGUF's NVFP4 has no place for g in its blocks.
#include "kernels/magnitudes.h"
#include "quantize/grid.h"

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
          .rounding = {kernels::RoundRule::kFloat4Even, -12, 12},
          .ggml = {},
          .compressed = CompressedScheme{"float", 4, "tensor_group", kGroup},
          .learned = {},
          .fit = [](const at::Tensor& x, const at::Tensor&) -> Scales {
            at::Tensor group = kernels::group_peaks(x, kGroup);
            const at::Tensor global = (448.0 * 6.0 / group.amax().clamp_min(1e-30)).reshape({1});
            group = global * (group / 6.0);
            const Scales one{at::ones_like(group.narrow(-1, 0, 1)), {}, {}, {}};
            kernels::round_values(group, one, {kernels::RoundRule::kFloat8, -448, 448}, group);
            std::vector<int64_t> rows = x.sizes().vec();
            rows.back() = sizeof(float);
            return {group / global * 0.5, {}, {}, global.view(at::kByte).expand(rows).contiguous()};
          }};
}

}  // namespace retort::quantize
