#include "quantize/learned_scale.h"

#include <cmath>

#include "core/error.h"
#include "kernels/learned_rounding.h"
#include "kernels/magnitudes.h"

namespace retort::quantize {

using kernels::kLeastLearned, kernels::kMostLearned;

Scales learned_scales(const at::Tensor& theta) { return {kernels::learned_scales(theta), {}, {}, {}}; }

at::Tensor theta_of(const Scales& scales) {
  return scales.scale.to(at::kDouble).clamp(kLeastLearned, kMostLearned).log().to(at::kFloat);
}

std::function<Scales(const at::Tensor&, const at::Tensor&)> from_mean_magnitude(double multiple) {
  return [multiple](const at::Tensor& x, const at::Tensor&) -> Scales {
    return {as_f16((kernels::row_means(x) * multiple).clamp(kLeastLearned, kMostLearned)), {}, {}, {}};
  };
}

LearnedGradient pull_back(const Grid& grid, const at::Tensor& w, const at::Tensor& theta,
                          const at::Tensor& gradient, const at::Tensor& weight,
                          std::optional<int64_t> elements) {
  RETORT_ASSERT(grid.learned && theta.numel() == w.size(0));
  const LearnedRule& rule = *grid.learned;
  LearnedGradient out{weight.defined() ? weight : at::empty_like(w, at::MemoryFormat::Contiguous), {}};
  const at::Tensor sums =
      kernels::round_backward(w, learned_scales(theta).scale, gradient,
                              {grid.rounding, rule.low, rule.high, rule.follows}, out.weight);
  const double gamma = 1.0 / std::sqrt(static_cast<double>(elements.value_or(w.numel()) * rule.levels));
  out.theta = sums.mul(gamma).to(at::kFloat);
  return out;
}

}  // namespace retort::quantize
