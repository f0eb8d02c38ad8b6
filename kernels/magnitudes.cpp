#include "kernels/magnitudes.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/each_target.h"
#include "core/error.h"

namespace retort::kernels {
namespace {

// As integers, magnitudes order as they do as numbers, NaN above all, and a maximum of integers vectorises.
[[gnu::always_inline]] inline float peak(const float* x, int64_t count) {
  int32_t most = 0;
  for (int64_t j = 0; j < count; ++j) most = std::max(most, std::bit_cast<int32_t>(x[j]) & INT32_MAX);
  return std::bit_cast<float>(most);
}

RETORT_EACH_TARGET
void peaks_of(const float* __restrict x, float* __restrict out, int64_t groups, int64_t group) {
  for (int64_t g = 0; g < groups; ++g, x += group)
    out[g] = group == 32 ? peak(x, 32) : group == 16 ? peak(x, 16) : peak(x, group);  // constants unroll
}

using Eight = float __attribute__((vector_size(32)));

// Eight f32 sums of 256 values at a time, then f64.
RETORT_EACH_TARGET
void means_of(const float* x, float* out, int64_t rows, int64_t row) {
  for (int64_t r = 0; r < rows; ++r, x += row) {
    double total = 0;
    for (int64_t i = 0; i < row;) {
      Eight lanes = {};
      const int64_t end = std::min(row, i + 256);
      for (; i + 8 <= end; i += 8) {
        Eight v;
        std::memcpy(&v, x + i, sizeof v);
        lanes += v < 0.0f ? -v : v;
      }
      for (; i < end; ++i) lanes[0] += std::abs(x[i]);
      for (int l = 0; l < 8; ++l) total += static_cast<double>(lanes[l]);
    }
    out[r] = static_cast<float>(total / static_cast<double>(row));
  }
}

void check_input(const at::Tensor& x) {
  check(x.defined() && x.is_cpu() && x.scalar_type() == at::kFloat, "[magnitudes] x must be f32 on the CPU");
}

// x [.., row] -> [.., row / group], by body(values, out, groups).
template <class Body>
at::Tensor over_groups(const at::Tensor& x, int64_t group, const Body& body) {
  check_input(x);
  RETORT_ASSERT(x.dim() > 0 && group > 0 && x.size(-1) % group == 0);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() /= group;
  const at::Tensor out = at::empty(shape, x.options());
  const at::Tensor dense = x.contiguous();
  const float* values = dense.const_data_ptr<float>();
  float* results = out.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, at::internal::GRAIN_SIZE / group);
  at::parallel_for(0, out.numel(), grain, [&](int64_t begin, int64_t end) {
    body(values + begin * group, results + begin, end - begin);
  });
  return out;
}

}  // namespace

at::Tensor group_peaks(const at::Tensor& x, int64_t group) {
  return over_groups(x, group, [group](const float* values, float* out, int64_t groups) {
    peaks_of(values, out, groups, group);
  });
}

at::Tensor row_means(const at::Tensor& x) {
  const int64_t row = x.size(-1);
  return over_groups(
      x, row, [row](const float* values, float* out, int64_t rows) { means_of(values, out, rows, row); });
}

double mean_in_order(const at::Tensor& x) {
  check_input(x);
  const at::Tensor dense = x.contiguous();
  const float* values = dense.const_data_ptr<float>();
  std::array<double, 256> sums = {};
  for (int64_t i = 0; i < dense.numel(); ++i) sums[static_cast<size_t>(i) % sums.size()] += values[i];
  for (size_t half = sums.size() / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0] / static_cast<double>(dense.numel());
}

}  // namespace retort::kernels
