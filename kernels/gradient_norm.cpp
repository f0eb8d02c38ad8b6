#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <numeric>

#include "core/error.h"
#include "kernels/cuda_ops.h"

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

// Of blocks on the CPU.
at::Tensor cpu_squares(const std::vector<at::Tensor>& blocks) {
  at::Tensor sums = at::empty({std::ssize(blocks)}, at::kDouble);
  double* const sum = sums.mutable_data_ptr<double>();
  at::parallel_for(0, std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const at::Tensor& block = blocks[static_cast<size_t>(b)];
      sum[b] = sum_of_squares(block.const_data_ptr<float>(), block.numel());
    }
  });
  return sums;
}

}  // namespace

Squares squares_of(const std::vector<BlockedGradient>& gradients) {
  std::vector<at::Tensor> blocks;
  for (const auto& [values, rows] : gradients) {
    check(values.defined() && values.scalar_type() == at::kFloat && values.is_contiguous() &&
              (values.is_cpu() || cuda::takes(values)),
          "[gradient_norm] needs contiguous f32 tensors, got {}", values.toString());
    const at::Tensor flat = values.view({-1});
    for (int64_t b = 0; b < rows.count(); ++b) {
      const Run run = elements_of(values, rows[b]);
      blocks.push_back(flat.narrow(0, run.first, run.count));
    }
  }
  Squares out;
  const cuda::Ops* const device = blocks.empty() ? nullptr : cuda::ops_for(blocks.front());
  out.pieces = device ? device->squares(blocks) : cpu_squares(blocks);
  for (const at::Tensor& block : blocks)
    out.of_block.push_back(device ? (block.numel() + cuda::kAdamChunk - 1) / cuda::kAdamChunk : 1);
  return out;
}

std::vector<double> Squares::blocks(std::span<const double> on_host) const {
  RETORT_ASSERT(std::ssize(on_host) == pieces.numel());
  std::vector<double> sums;
  for (auto piece = on_host.begin(); const int64_t count : of_block) {
    sums.push_back(std::accumulate(piece, piece + count, 0.0));
    piece += count;
  }
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
