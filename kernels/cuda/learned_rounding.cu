// The gradient of rounding under one learned scale a row, in one pass; kernels/learned_rounding.h has the formula.
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/row_sums.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

// Every operation is the CPU's. `out` may be `gradient`: who reads a place writes it.
template <class R, bool kRuns>
struct Slopes {
  const float *x, *gradient;
  float* out;
  R rule;
  float scale, low, high, follows;
  // Adds the term of one value to `sum`, and makes its gradient x's.
  __device__ void add(float value, float& slope, float& sum) const {
    const float inside = value >= low && value <= high ? 1.0f : 0.0f;
    const float rounded = __fmul_rn(scale, rule(value));
    const float step = __fsub_rn(rounded, __fmul_rn(__fmul_rn(follows, inside), value));
    sum = __fadd_rn(sum, __fmul_rn(slope, step));
    slope = __fmul_rn(inside, slope);
  }
  __device__ void four(int64_t i, float (&sums)[kSums]) const {
    float v[kSums], g[kSums];
    get_four<kRuns>(x + i, v);
    get_four<kRuns>(gradient + i, g);
#pragma unroll
    for (int k = 0; k < kSums; ++k) add(v[k], g[k], sums[k]);
    put_four<kRuns>(out + i, g);
  }
  __device__ void one(int64_t i, float& sum) const {
    float g = __ldca(gradient + i);
    add(__ldca(x + i), g, sum);
    out[i] = g;
  }
};

template <class R, bool kRuns>
__global__ void __launch_bounds__(kThreads, 2)  // else ptxas spills for the sake of a third block
    backward_kernel(LearnedRule learned, const float* x, const float* scales, const float* gradient,
                    float* out, double* sums, int64_t rows, int64_t width) {
  const int64_t row = row_of_warp(), first = row * width;
  if (row >= rows) return;
  const float scale = scales[row];
  const double sum =
      sum_in_order(width, Slopes<R, kRuns>{x + first, gradient + first, out + first, R(scale, learned.grid),
                                           scale, __fmul_rn(learned.low, scale),
                                           __fmul_rn(learned.high, scale), learned.follows});
  if (threadIdx.x % kWarp == 0) sums[row] = sum;
}

void round_backward(const LearnedRule& learned, const float* x, const float* scales, const float* gradient,
                    float* out, double* sums, int64_t rows, int64_t width, Stream stream) {
  if (rows == 0) return;
  with_rule(learned.grid.rule, [&](auto* rule) {
    using R = std::remove_pointer_t<decltype(rule)>;
    const bool runs = width % kSums == 0 && aligned(x, gradient, static_cast<const float*>(out));
    launch(runs ? backward_kernel<R, true> : backward_kernel<R, false>,
           {blocks_for(rows, kThreads / kWarp), kThreads}, stream, learned, x, scales, gradient, out, sums,
           rows, width);
  });
}

}  // namespace

void add_learned_rounding(Table& table) { table.round_backward = round_backward; }

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
