#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "core/error.h"

namespace retort::kernels {
namespace {

// Eight running sums keep the adders busy; their order is part of the result.
double sum_of_squares(const float* x, int64_t count) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (int64_t lane = 0; lane < 8; ++lane) {
      const double value = x[i + lane];
      lanes[lane] += value * value;
    }
  for (; i < count; ++i) lanes[0] += static_cast<double>(x[i]) * x[i];
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

}  // namespace

double gradient_norm(const std::vector<BlockedGradient>& gradients) {
  double total = 0.0;
  for (const auto& [gradient, blocks] : gradients) {
    check(gradient.is_cpu() && gradient.scalar_type() == at::kFloat,
          "[gradient_norm] needs f32 tensors on the CPU, got {}", gradient.toString());
    const at::Tensor dense = gradient.contiguous();
    const float* x = dense.const_data_ptr<float>();
    std::vector<double> sums(static_cast<size_t>(blocks.count()));
    at::parallel_for(0, blocks.count(), 1, [&, &blocks = blocks](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const Run run = elements_of(dense, blocks[b]);
        sums[static_cast<size_t>(b)] = sum_of_squares(x + run.first, run.count);
      }
    });
    for (const double sum : sums) total += sum;
  }
  return std::sqrt(total);
}

void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double limit) {
  if (limit <= 0.0 || !(norm > limit)) return;
  for (at::Tensor& gradient : gradients) gradient.mul_(limit / norm);
}

}  // namespace retort::kernels
