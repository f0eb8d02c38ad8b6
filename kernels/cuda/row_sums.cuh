// Sums over a row in the order of kernels/magnitudes.cpp and kernels/learned_rounding.cpp: of every 256 terms eight f32
// sums, each of every eighth; these one after another in f64. A warp takes a row, two lanes 256 of its terms, four of
// the sums each; the first lane adds up what all found.
#pragma once

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

constexpr int kSums = kFour;  // of a lane

// Four values in one access, where rows allow it.
template <bool kRuns>
__device__ void get_four(const float* p, float (&x)[kSums]) {
  if constexpr (kRuns) {
    get_stream(p, x);
  } else {
#pragma unroll
    for (int k = 0; k < kSums; ++k) x[k] = __ldca(p + k);
  }
}
template <bool kRuns>
__device__ void put_four(float* p, const float (&x)[kSums]) {
  if constexpr (kRuns) {
    put_stream(p, x);
  } else {
#pragma unroll
    for (int k = 0; k < kSums; ++k) __stwb(p + k, x[k]);
  }
}

// Every lane of the warp calls it with the same row: term.four(i, sums) adds the terms i .. i + 3 to the sums,
// term.one(i, sum) one. The sum is the first lane's.
template <class Term>
__device__ double sum_in_order(int64_t width, const Term& term) {
  constexpr int kPart = 256, kParts = kWarp / 2;
  auto& of_thread = shared<float[kThreads][kSums], struct OfThread>();
  const int lane = threadIdx.x % kWarp;
  double total = 0.0;
  for (int64_t begin = 0; begin < width; begin += kParts * kPart) {
    int64_t i = begin + lane / 2 * kPart;
    const int64_t end = i + kPart < width ? i + kPart : width;
    float sums[kSums] = {};
#pragma unroll 4
    for (; i + 2 * kSums <= end; i += 2 * kSums) term.four(i + lane % 2 * kSums, sums);
    if (lane % 2 == 0)
#pragma unroll 1
      for (; i < end; ++i) term.one(i, sums[0]);
#pragma unroll
    for (int k = 0; k < kSums; ++k) of_thread[threadIdx.x][k] = sums[k];
    __syncwarp();
    if (lane == 0)
      for (int l = 0; l < kWarp; ++l)
#pragma unroll
        for (int k = 0; k < kSums; ++k)
          total = __dadd_rn(total, static_cast<double>(of_thread[threadIdx.x + l][k]));
    __syncwarp();
  }
  return total;
}

// The row of the calling warp.
__device__ inline int64_t row_of_warp() {
  return (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
