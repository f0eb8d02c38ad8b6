// BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): s = f16(mean |W|), q = clip(round(W / s), -1, 1), value s
// q. The scale follows the weights every step and counts as constant in the gradient. `ternary` has one scale
// a tensor, as published; `ternary_row` one a row. Stored as TQ1_0 with d = s: where a block of 256 holds a
// non-zero, s is its largest magnitude, so ggml's own quantizer finds it again.
#include <numeric>

#include "quantize/grid.h"
#include "quantize/magnitudes.h"

namespace retort::quantize {
namespace {

// In one order, whatever the machine's vectors.
double mean_of(const at::Tensor& x) {
  const float* values = x.const_data_ptr<float>();
  return std::accumulate(values, values + x.numel(), 0.0) / static_cast<double>(x.numel());
}

Grid ternary_like(std::string name, bool per_row) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(formats::GgmlType::TQ1_0);
  return {.name = std::move(name),
          .block = info.block,
          .span = 0,
          .rows_alone = per_row,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = {kernels::RoundRule::kNearestEven, -1, 1},
          .ggml = info.type,
          .compressed = {},
          .learned = {},
          .fit = [per_row](const at::Tensor& x, const at::Tensor&) -> Scales {
            const at::Tensor means = row_means(x);
            return {as_f16(per_row ? means : at::full_like(means, mean_of(means))), {}, {}, {}};
          }};
}

}  // namespace

Grid ternary_grid() { return ternary_like("ternary", false); }
Grid ternary_row_grid() { return ternary_like("ternary_row", true); }

}  // namespace retort::quantize
