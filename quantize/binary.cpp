// Elastic binarisation (ParetoQ, Liu et al. 2025, arXiv 2502.02631): a sign(w) with a learned scale a row,
// sign(0) = +, starting at mean |w|, which has the least error. Stored as TQ1_0 with d = a and no zeros.
#include "quantize/learned_scale.h"

namespace retort::quantize {

Grid binary_grid() {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(formats::GgmlType::TQ1_0);
  return {.name = "binary",
          .block = info.block,
          .span = 0,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = {kernels::RoundRule::kSign, -1, 1},
          .ggml = info.type,
          .compressed = {},
          .learned = LearnedRule{.low = -1.0, .high = 1.0, .follows = false, .levels = 1},
          .fit = from_mean_magnitude(1.0)};
}

}  // namespace retort::quantize
