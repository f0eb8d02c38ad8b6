#include "quantize/learned_scale.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/each_target.h"
#include "kernels/rounding.h"
#include "quantize/magnitudes.h"

namespace retort::quantize {
namespace {

constexpr double kLeast = 0x1p-14, kMost = 65504.0;
constexpr int64_t kWorth = 1 << 17;  // values that are worth a thread: some 50 us

using Eight = float __attribute__((vector_size(32)));

// The gradient of one row's weights, and of its theta before gamma: sum g (value - w where it is inside and
// the rule follows it; value). Eight f32 sums of 256 values at a time, then f64. `out` may be g.
RETORT_EACH_TARGET
double pull_back_row(const float* w, const float* g, const float* value, float low, float high, float follows,
                     float* out, int64_t count) {
  const Eight zero = {}, one = zero + 1.0f;
  double total = 0;
  for (int64_t i = 0; i < count;) {
    Eight lanes = {};
    const int64_t end = std::min(count, i + 256);
    for (; i + 8 <= end; i += 8) {
      Eight x, slope, y;
      std::memcpy(&x, w + i, sizeof x);
      std::memcpy(&slope, g + i, sizeof slope);
      std::memcpy(&y, value + i, sizeof y);
      const Eight inside = (x >= low) & (x <= high) ? one : zero, kept = inside * slope;
      std::memcpy(out + i, &kept, sizeof kept);
      lanes += slope * (y - follows * inside * x);
    }
    for (; i < end; ++i) {
      const float slope = g[i], inside = w[i] >= low && w[i] <= high ? 1.0f : 0.0f;
      out[i] = inside * slope;
      lanes[0] += slope * (value[i] - follows * inside * w[i]);
    }
    for (int l = 0; l < 8; ++l) total += static_cast<double>(lanes[l]);
  }
  return total;
}

}  // namespace

Scales learned_scales(const at::Tensor& theta) {
  const at::Tensor scale = theta.to(at::kDouble).exp().clamp(kLeast, kMost).to(at::kFloat);
  return {as_f16(scale), {}, {}, {}};
}

at::Tensor theta_of(const Scales& scales) {
  return scales.scale.to(at::kDouble).clamp(kLeast, kMost).log().to(at::kFloat);
}

std::function<Scales(const at::Tensor&, const at::Tensor&)> from_mean_magnitude(double multiple) {
  return [multiple](const at::Tensor& x, const at::Tensor&) -> Scales {
    return {as_f16((row_means(x) * multiple).clamp(kLeast, kMost)), {}, {}, {}};
  };
}

LearnedGradient pull_back(const Grid& grid, const at::Tensor& w, const at::Tensor& theta,
                          const at::Tensor& gradient, const at::Tensor& weight) {
  RETORT_ASSERT(grid.learned && w.dim() == 2 && gradient.sizes() == w.sizes() && theta.numel() == w.size(0));
  const at::Tensor scales = learned_scales(theta).scale, x = w.contiguous(), g = gradient.contiguous();
  const int64_t rows = w.size(0), in = w.size(1);
  const LearnedRule& rule = *grid.learned;
  LearnedGradient out{weight.defined() ? weight : at::empty_like(x), at::empty_like(theta)};
  RETORT_ASSERT(out.weight.is_contiguous() && out.weight.sizes() == w.sizes());
  const double gamma = 1.0 / std::sqrt(static_cast<double>(w.numel() * rule.levels));
  const float *xs = x.const_data_ptr<float>(), *gs = g.const_data_ptr<float>(),
              *scale = scales.const_data_ptr<float>();
  float *weights = out.weight.mutable_data_ptr<float>(), *thetas = out.theta.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kWorth / std::max<int64_t>(1, in));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> values(static_cast<size_t>(in));
    for (int64_t r = begin; r < end; ++r) {
      kernels::round_to_values(xs + r * in, scale + r, scale + r, nullptr, values.data(), 1, in,
                               grid.rounding);
      const double sum = pull_back_row(
          xs + r * in, gs + r * in, values.data(), static_cast<float>(rule.low) * scale[r],
          static_cast<float>(rule.high) * scale[r], rule.follows ? 1.0f : 0.0f, weights + r * in, in);
      thetas[r] = static_cast<float>(gamma * sum);
    }
  });
  return out;
}

}  // namespace retort::quantize
