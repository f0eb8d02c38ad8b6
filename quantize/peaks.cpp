#include "quantize/peaks.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "formats/each_target.h"

namespace retort::quantize {
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

}  // namespace

at::Tensor group_peaks(const at::Tensor& x, int64_t group) {
  RETORT_ASSERT(x.scalar_type() == at::kFloat && x.dim() > 0 && group > 0 && x.size(-1) % group == 0);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() /= group;
  const at::Tensor out = at::empty(shape, x.options());
  const at::Tensor dense = x.contiguous();
  const float* values = dense.const_data_ptr<float>();
  float* peaks = out.mutable_data_ptr<float>();
  at::parallel_for(0, out.numel(), std::max<int64_t>(1, (1 << 18) / group), [&](int64_t begin, int64_t end) {
    peaks_of(values + begin * group, peaks + begin, end - begin, group);
  });
  return out;
}

}  // namespace retort::quantize
