// BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): s = f16(mean |W|), q = clip(round(W / s), -1, 1), value s
// q. The scale follows the weights every step and counts as constant in the gradient. `ternary` has one scale
// a tensor, as published; `ternary_row` one a row. Stored as TQ1_0 with d = s: where a block of 256 holds a
// non-zero, s is its largest magnitude, so ggml's own quantizer finds it again.
#include "kernels/magnitudes.h"
#include "quantize/grid.h"

namespace retort::quantize {
namespace {

Grid ternary_like(std::string name, bool per_row) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(formats::GgmlType::TQ1_0);
  return {
      .name = std::move(name),
      .block = info.block,
      .span = 0,
      .rows_alone = per_row,
      .bits_per_weight = info.bits_per_weight(),
      .rounding = {kernels::RoundRule::kNearestEven, -1, 1},
      .ggml = info.type,
      .compressed = {},
      .learned = {},
      .fit = [per_row](const at::Tensor& x, const at::Tensor&) -> Scales {
        const at::Tensor means = kernels::row_means(x);
        return {as_f16(per_row ? means : at::full_like(means, kernels::mean_in_order(means))), {}, {}, {}};
      }};
}

}  // namespace

Grid ternary_grid() { return ternary_like("ternary", false); }
Grid ternary_row_grid() { return ternary_like("ternary_row", true); }

}  // namespace retort::quantize
