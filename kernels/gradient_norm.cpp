#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace retort::kernels {
namespace {

constexpr int64_t kBlock = 1 << 15;

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

double gradient_norm(const std::vector<at::Tensor>& gradients) {
  double total = 0.0;
  for (const at::Tensor& gradient : gradients) {
    check(gradient.is_cpu() && gradient.scalar_type() == at::kFloat,
          "[gradient_norm] needs f32 tensors on the CPU, got {}", gradient.toString());
    const at::Tensor dense = gradient.contiguous();
    const float* x = dense.const_data_ptr<float>();
    const int64_t count = dense.numel();
    std::vector<double> blocks(static_cast<size_t>((count + kBlock - 1) / kBlock));
    at::parallel_for(0, static_cast<int64_t>(blocks.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b)
        blocks[static_cast<size_t>(b)] = sum_of_squares(x + b * kBlock, std::min(kBlock, count - b * kBlock));
    });
    for (const double block : blocks) total += block;
  }
  return std::sqrt(total);
}

void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double limit) {
  if (limit <= 0.0 || !(norm > limit)) return;
  for (at::Tensor& gradient : gradients) gradient.mul_(limit / norm);
}

}  // namespace retort::kernels
