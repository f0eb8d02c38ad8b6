#include "quantize/learned_scale.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "formats/each_target.h"

namespace retort::quantize {
namespace {

constexpr double kLeast = 0x1p-14, kMost = 65504.0;

// The gradient of one row's weights, and of its theta before gamma: sum g (value - w where it is inside and
// the rule follows it; value). Eight f32 sums of 256 values at a time, then f64.
RETORT_EACH_TARGET
double pull_back_row(const float* __restrict w, const float* __restrict g, const int8_t* __restrict code,
                     float scale, float low, float high, float follows, float* __restrict out,
                     int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count;) {
    float lanes[8] = {};
    const int64_t end = std::min(count, i + 256);
    for (; i + 8 <= end; i += 8)
      for (int l = 0; l < 8; ++l) {
        const float v = w[i + l], inside = v >= low && v <= high ? 1.0f : 0.0f;
        out[i + l] = inside * g[i + l];
        lanes[l] += g[i + l] * (static_cast<float>(code[i + l]) * scale - follows * inside * v);
      }
    for (; i < end; ++i) {
      const float inside = w[i] >= low && w[i] <= high ? 1.0f : 0.0f;
      out[i] = inside * g[i];
      lanes[0] += g[i] * (static_cast<float>(code[i]) * scale - follows * inside * w[i]);
    }
    for (const float lane : lanes) total += static_cast<double>(lane);
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
    const at::Tensor scale = (x.abs().mean(-1, /*keepdim=*/true) * multiple).clamp(kLeast, kMost);
    return {as_f16(scale), {}, {}, {}};
  };
}

LearnedGradient pull_back(const Grid& grid, const at::Tensor& w, const at::Tensor& theta,
                          const at::Tensor& gradient) {
  RETORT_ASSERT(grid.learned && w.dim() == 2 && gradient.sizes() == w.sizes() && theta.numel() == w.size(0));
  const Scales scales = learned_scales(theta);
  const at::Tensor codes = grid.round(w, scales), x = w.contiguous(), g = gradient.contiguous();
  const int64_t rows = w.size(0), in = w.size(1);
  const LearnedRule& rule = *grid.learned;
  LearnedGradient out{at::empty_like(x), at::empty_like(theta)};
  const double gamma = 1.0 / std::sqrt(static_cast<double>(w.numel() * rule.levels));
  const float *xs = x.const_data_ptr<float>(), *gs = g.const_data_ptr<float>(),
              *scale = scales.scale.const_data_ptr<float>();
  const int8_t* cs = codes.const_data_ptr<int8_t>();
  float *weight = out.weight.mutable_data_ptr<float>(), *row_theta = out.theta.mutable_data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / in), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float low = static_cast<float>(rule.low) * scale[r],
                  high = static_cast<float>(rule.high) * scale[r];
      const double sum = pull_back_row(xs + r * in, gs + r * in, cs + r * in, scale[r], low, high,
                                       rule.follows ? 1.0f : 0.0f, weight + r * in, in);
      row_theta[r] = static_cast<float>(gamma * sum);
    }
  });
  return out;
}

}  // namespace retort::quantize
