// LSQ (Esser et al. 2020, arXiv 1902.08153) with a learned scale a row: s clip(round(w / s), -2^(b-1),
// 2^(b-1) - 1). Four bits are stored as Q4_0 with d = s in every block of the row, three as Q3_K with d = s
// and every sub-scale 1. Training starts at the multiple of mean |w| with the least error on Gaussian rows.
#include "quantize/learned_scale.h"

namespace retort::quantize {
namespace {

Grid lsq(int bits, formats::GgmlType type, double start) {
  const formats::GgmlTypeInfo& info = formats::ggml_type_info(type);
  const int highest = (1 << (bits - 1)) - 1;
  return {.name = fmt::format("lsq{}", bits),
          .block = info.block,
          .span = 0,
          .bits_per_weight = info.bits_per_weight(),
          .rounding = {kernels::RoundRule::kNearestEven, -highest - 1, highest},
          .ggml = type,
          .compressed = {},
          .learned = LearnedRule{.low = -highest - 1.0, .high = 1.0 * highest, .levels = highest},
          .fit = from_mean_magnitude(start)};
}

}  // namespace

Grid lsq4_grid() { return lsq(4, formats::GgmlType::Q4_0, 0.42); }
Grid lsq3_grid() { return lsq(3, formats::GgmlType::Q3_K, 0.76); }

}  // namespace retort::quantize
