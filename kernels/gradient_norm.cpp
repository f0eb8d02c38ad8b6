#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/shape.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels {
namespace {

constexpr int kSums = 256;  // of a piece

__attribute__((target("avx2"))) inline __m256d square(const float* x) {
  const __m256d wide = _mm256_cvtps_pd(_mm_loadu_ps(x));
  return _mm256_mul_pd(wide, wide);
}

// Of eight elements and of the eight that lie half a piece further: ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)).
__attribute__((target("avx2"))) inline double square_eight(const float* x) {
  constexpr int64_t kHalf = kSums * 8;
  const __m256d low = _mm256_add_pd(square(x), square(x + kHalf)),
                high = _mm256_add_pd(square(x + 4), square(x + kHalf + 4));
  const __m256d pairs = _mm256_hadd_pd(low, high);
  const __m128d fours = _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1));
  return _mm_cvtsd_f64(_mm_add_sd(fours, _mm_unpackhi_pd(fours, fours)));
}

double by_halves(double* x, int count) {
  for (int half = count / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

__attribute__((target("avx2"))) double whole_piece(const float* x) {
  constexpr int kLanes = 32, kWarps = kSums / kLanes;
  double sums[kSums], of_warp[kWarps];
  for (int i = 0; i < kSums; ++i) sums[i] = square_eight(x + int64_t{8} * i);
  for (int warp = 0; warp < kWarps; ++warp) of_warp[warp] = by_halves(sums + warp * kLanes, kLanes);
  return by_halves(of_warp, kWarps);
}

double piece(const float* x, int64_t count) {
  if (count == cuda::kAdamChunk) return whole_piece(x);
  float padded[cuda::kAdamChunk] = {};
  std::copy_n(x, count, padded);
  return whole_piece(padded);
}

double block_of(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i += cuda::kAdamChunk)
    sum += piece(x + i, std::min(cuda::kAdamChunk, count - i));
  return sum;
}

// Of blocks on the CPU.
at::Tensor cpu_squares(const std::vector<at::Tensor>& blocks) {
  at::Tensor sums = at::empty({std::ssize(blocks)}, at::kDouble);
  double* const sum = sums.mutable_data_ptr<double>();
  at::parallel_for(0, std::ssize(blocks), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const at::Tensor& block = blocks[static_cast<size_t>(b)];
      sum[b] = block_of(block.const_data_ptr<float>(), block.numel());
    }
  });
  return sums;
}

// For profiles.
std::vector<c10::IValue> operands(const std::vector<BlockedGradient>& gradients) {
  std::vector<c10::IValue> out;
  for (const BlockedGradient& one : gradients) out.emplace_back(one.values);
  return out;
}

}  // namespace

Squares squares_of(const std::vector<BlockedGradient>& gradients) {
  RECORD_USER_SCOPE_WITH_INPUTS("retort::gradient_norm", operands(gradients));
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
  out.device = device;
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

at::Tensor verdict(double norm, bool finite, double limit) {
  const double factor = limit > 0.0 && norm > limit ? static_cast<float>(limit / norm) : 1.0;
  return at::tensor({norm, factor, std::isfinite(norm) && finite ? 1.0 : 0.0}, at::kDouble);
}

at::Tensor judge(const Squares& squares, const at::Tensor& losses, double limit) {
  check(
      losses.dim() == 1 && losses.scalar_type() == at::kDouble && losses.device() == squares.pieces.device(),
      "[gradient_norm] losses must be f64 [L] beside the gradients, got {} {}", losses.toString(),
      format_shape(losses.sizes()));
  if (const cuda::Ops* const device = squares.device)
    return device->judge(squares.pieces, squares.of_block, losses, limit);
  const at::Tensor dense = losses.contiguous();
  const std::span<const double> values(dense.const_data_ptr<double>(), static_cast<size_t>(dense.numel())),
      pieces(squares.pieces.const_data_ptr<double>(), static_cast<size_t>(squares.pieces.numel()));
  return verdict(norm_of(squares.blocks(pieces)),
                 std::isfinite(std::accumulate(values.begin(), values.end(), 0.0)), limit);
}

}  // namespace retort::kernels
