// How the norms divide their rows: `kLanes` neighbouring threads work on one row, each on `kSteps` runs of N
// elements that stay in registers; kSteps 0: rows of any width, read again from the cache for each pass.
#pragma once

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

template <int kLanes, int kSteps, int N>
struct RowPlan {
  static constexpr int lanes = kLanes, steps = kSteps, n = N, held = kSteps > 0 ? kSteps : 1;
  static constexpr int threads = kLanes < kThreads ? (kLanes < kWarp * 2 ? kThreads : kLanes) : kLanes;
  static constexpr int rows_of_block = threads / kLanes;
  // Blocks that a processor should hold at once, of a kernel that keeps its row and sums in registers.
  static constexpr int resident = kSteps == 1 ? 1024 / threads : 1;

  // f(k, i) for this thread's runs of a row: the k-th begins at element i.
  template <class F>
  __device__ static void each(int64_t width, F f) {
    const int lane = threadIdx.x % kLanes;
    if constexpr (kSteps > 0) {
#pragma unroll
      for (int k = 0; k < kSteps; ++k)
        if (const int64_t i = (k * kLanes + lane) * N; i < width) f(k, i);
    } else {
      for (int64_t i = lane * N; i < width; i += kLanes * N) f(0, i);
    }
  }
  // The first row of this thread, and how many there are to the next one's.
  __device__ static int64_t first_row() {
    return static_cast<int64_t>(blockIdx.x) * rows_of_block + threadIdx.x / kLanes;
  }
};

// Calls f(plan) with the plan for rows of `width`.
template <class F>
void with_row_plan(int64_t width, bool runs, F f) {
  if (!runs || width % kRun != 0) return f(RowPlan<256, 0, 1>());
  if (width <= 128) return f(RowPlan<16, 1, kRun>());
  if (width <= 256) return f(RowPlan<32, 1, kRun>());
  if (width <= 1024) return f(RowPlan<128, 1, kRun>());
  if (width <= 2048) return f(RowPlan<256, 1, kRun>());
  if (width <= 4096) return f(RowPlan<512, 1, kRun>());
  if (width <= 8192) return f(RowPlan<512, 2, kRun>());
  f(RowPlan<256, 0, kRun>());
}

// A run as it is after it was written in T.
template <class T, int N>
__device__ void round_to(float (&x)[N]) {
  if constexpr (!std::is_same_v<T, float>)
#pragma unroll
    for (int j = 0; j < N; ++j) x[j] = to_float(__float2bfloat16_rn(x[j]));
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
