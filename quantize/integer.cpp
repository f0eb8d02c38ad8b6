// Symmetric integers by compressed-tensors' rules: s = f16(amax / ((2^b - 1) / 2)), q = clip(round(w / s)),
// halves to even, over a row (channel) or groups of columns; a scale of 0 becomes the least f16. The same
// numbers are Q4_0 (groups are whole blocks, d = s) and Q8_0.
#include <cmath>

#include "kernels/magnitudes.h"
#include "quantize/grid.h"

namespace retort::quantize {
namespace {

Grid integer(int bits, int64_t group, formats::GgmlType type) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(type);
  const int highest = (1 << (bits - 1)) - 1;
  const double half_range = (std::exp2(bits) - 1) / 2;
  return {.name = fmt::format("int{}_{}", bits, group == 0 ? "row" : fmt::format("g{}", group)),
          .block = std::max(group, info.block),
          .span = group,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = {kernels::RoundRule::kNearestEven, -highest - 1, highest},
          .ggml = type,
          .compressed = CompressedScheme{"int", bits, group == 0 ? "channel" : "group", group},
          .learned = {},
          .fit = [group, half_range](const at::Tensor& x, const at::Tensor&) -> Scales {
            const at::Tensor peak = kernels::group_peaks(x, group == 0 ? x.size(-1) : group);
            return {as_f16(peak / half_range).clamp_min_(std::exp2(-24)), {}, {}, {}};
          }};
}

}  // namespace

Grid int4_grid(int64_t group) { return integer(4, group, formats::GgmlType::Q4_0); }
Grid int8_grid(int64_t group) { return integer(8, group, formats::GgmlType::Q8_0); }

}  // namespace retort::quantize
