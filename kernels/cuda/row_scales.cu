// Scales of whole rows: of their mean magnitudes, and of logarithms that are learned. The CPU's bits
// (kernels/magnitudes.cpp, kernels/learned_rounding.cpp).
#include "kernels/cuda/rounding.cuh"
#include "kernels/cuda/row_sums.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

namespace {

template <bool kRuns>
struct Magnitudes {
  const float* x;
  __device__ void four(int64_t i, float (&sums)[kSums]) const {
    float v[kSums];
    get_four<kRuns>(x + i, v);
#pragma unroll
    for (int k = 0; k < kSums; ++k) sums[k] = __fadd_rn(sums[k], fabsf(v[k]));
  }
  __device__ void one(int64_t i, float& sum) const { sum = __fadd_rn(sum, fabsf(__ldca(x + i))); }
};

__device__ float scale_of_mean(float mean) { return as_half(mean > 65504.0f ? 65504.0f : mean); }

// kScale: as a scale; else the mean itself.
template <bool kRuns, bool kScale>
__global__ void __launch_bounds__(kThreads)
    means_kernel(const float* x, float* out, int64_t rows, int64_t width) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  const double sum = sum_in_order(width, Magnitudes<kRuns>{x + row * width});
  const auto mean = static_cast<float>(__ddiv_rn(sum, static_cast<double>(width)));
  if (threadIdx.x % kWarp == 0) out[row] = kScale ? scale_of_mean(mean) : mean;
}

// One block makes the rows' means the scale of all. Thread t adds every kThreads-th of them, from t on.
__global__ void __launch_bounds__(kThreads) mean_of_all_kernel(float* means, int64_t rows) {
  auto& sums = shared<double[kThreads], struct OfThread>();
  double mine = 0.0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < rows; i += kThreads)
    mine = __dadd_rn(mine, static_cast<double>(means[i]));
  sums[threadIdx.x] = mine;
  for (unsigned int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] = __dadd_rn(sums[threadIdx.x], sums[threadIdx.x + half]);
  }
  __syncthreads();
  const float scale = scale_of_mean(static_cast<float>(__ddiv_rn(sums[0], static_cast<double>(rows))));
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) means[i] = scale;
}

// See kernels/learned_rounding.cpp, which has the same operations in the same order.
__device__ double exponential(double t) {
  constexpr double kShift = 0x1.8p52;
  const double shifted = __dadd_rn(__dmul_rn(t, 0x1.71547652b82fep0), kShift), k = __dsub_rn(shifted, kShift);
  const double r =
      __dsub_rn(__dsub_rn(t, __dmul_rn(k, 0x1.62e42feep-1)), __dmul_rn(k, 0x1.a39ef35793c76p-33));
  double p = 1.0 / 6227020800.0;
  constexpr double kFactorials[] = {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0,
                                    120.0,       24.0,       6.0,       2.0,      1.0,     1.0};
#pragma unroll
  for (const double factorial : kFactorials) p = __dadd_rn(__dmul_rn(p, r), 1.0 / factorial);
  const long long exponent = __double_as_longlong(shifted) - __double_as_longlong(kShift);
  const auto bits = static_cast<unsigned long long>(exponent + 1023) << 52;
  return __dmul_rn(p, __longlong_as_double(static_cast<long long>(bits)));
}

__global__ void __launch_bounds__(kThreads) learned_kernel(const float* theta, float* scales, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  const double t = theta[i], bounded = t < -9.75 ? -9.75 : t > 11.1 ? 11.1 : t, scale = exponential(bounded);
  scales[i] = as_half(static_cast<float>(scale < 0x1p-14 ? 0x1p-14 : scale > 65504.0 ? 65504.0 : scale));
}

void row_scales(Fit fit, const float* x, float* scales, int64_t rows, int64_t width, Stream stream) {
  if (rows == 0 || width == 0) return;
  const bool runs = width % kSums == 0 && aligned(x), alone = fit == Fit::kMean;
  const auto kernel = runs ? (alone ? means_kernel<true, true> : means_kernel<true, false>)
                           : (alone ? means_kernel<false, true> : means_kernel<false, false>);
  launch(kernel, {blocks_for(rows, kThreads / kWarp), kThreads}, stream, x, scales, rows, width);
  if (!alone) launch(mean_of_all_kernel, {1u, kThreads}, stream, scales, rows);
}

void learned_scales(const float* theta, float* scales, int64_t n, Stream stream) {
  if (n == 0) return;
  launch(learned_kernel, {blocks_for(n), kThreads}, stream, theta, scales, n);
}

}  // namespace

void add_row_scales(Table& table) {
  table.row_scales = row_scales;
  table.learned_scales = learned_scales;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
