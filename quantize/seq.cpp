// SEQ, stretched elastic quantization (ParetoQ, Liu et al. 2025, arXiv 2502.02631), with a learned scale a
// row: levels in the middle of equal parts of [-a, a].
//   seq2          a * {-3/4, -1/4, 1/4, 3/4}; the scale is u = a / 4, codes -3 -1 1 3; Q2_K with d = dmin = u
//   seq_ternary   a * {-2/3, 0, 2/3}; the scale is s = 2a / 3, codes -1 0 1; TQ1_0 with d = s
// The scale is the number that the block stores, since an f16 of `a` would not be one of a / 4. A weight
// counts as clipped from |w / a| = .99 on. seq2 starts at a = 2.2 mean |w| (amax, as published, suits long
// runs); seq_ternary where BitNet's scale is.
#include "quantize/learned_scale.h"

namespace retort::quantize {
namespace {

constexpr double kClip = 0.99;

Grid seq(std::string name, formats::GgmlType type, kernels::Rounding rounding, double a_in_scales,
         double start) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(type);
  return {.name = std::move(name),
          .block = info.block,
          .span = 0,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = rounding,
          .ggml = type,
          .compressed = {},
          .learned = LearnedRule{.low = -kClip * a_in_scales, .high = kClip * a_in_scales, .levels = 1},
          .fit = from_mean_magnitude(start)};
}

}  // namespace

Grid seq2_grid() {
  return seq("seq2", formats::GgmlType::Q2_K, {kernels::RoundRule::kOdd, -3, 3}, 4.0, 2.2 / 4.0);
}
Grid seq_ternary_grid() {
  return seq("seq_ternary", formats::GgmlType::TQ1_0, {kernels::RoundRule::kNearestEven, -1, 1}, 1.5, 1.0);
}

}  // namespace retort::quantize
