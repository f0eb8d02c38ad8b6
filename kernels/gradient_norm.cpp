#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <numeric>
#include <utility>

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

std::vector<double> block_squares(const std::vector<BlockedGradient>& gradients) {
  std::vector<std::pair<const float*, int64_t>> blocks;
  for (const auto& [values, rows] : gradients) {
    check(values.defined() && values.is_cpu() && values.scalar_type() == at::kFloat && values.is_contiguous(),
          "[gradient_norm] needs contiguous f32 tensors on the CPU, got {}", values.toString());
    const float* x = values.const_data_ptr<float>();
    for (int64_t b = 0; b < rows.count(); ++b) {
      const Run run = elements_of(values, rows[b]);
      blocks.emplace_back(x + run.first, run.count);
    }
  }
  std::vector<double> sums(blocks.size());
  at::parallel_for(0, std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
    for (auto b = static_cast<size_t>(begin); b < static_cast<size_t>(end); ++b)
      sums[b] = sum_of_squares(blocks[b].first, blocks[b].second);
  });
  return sums;
}

double norm_of(const std::vector<double>& squares) {
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

void clip_gradients(const std::vector<BlockedGradient>& gradients, double norm, double limit) {
  if (limit <= 0.0 || !(norm > limit)) return;
  for (const BlockedGradient& gradient : gradients) gradient.values.mul_(limit / norm);
}

}  // namespace retort::kernels
