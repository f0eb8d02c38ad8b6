// What the kernels of this folder share: elements in f32 and bf16, and sums over a thread block in a fixed
// order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch.h"

namespace retort::kernels::cuda {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline void put(float* p, float x) { *p = x; }
__device__ inline void put(__nv_bfloat16* p, float x) { *p = __float2bfloat16(x); }

struct Sum {
  static constexpr float kNone = 0.0f;
  __device__ static float join(float a, float b) { return a + b; }
};
struct Max {
  static constexpr float kNone = -INFINITY;
  __device__ static float join(float a, float b) { return fmaxf(a, b); }
};

// Joins `value` over the block of kThreads threads; every thread gets the result.
template <class Join>
__device__ float over_block(float value) {
  __shared__ float of_warp[kThreads / kWarp];
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = Join::join(value, __shfl_down_sync(0xffffffff, value, offset));
  __syncthreads();  // an earlier call's readers are done
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
  __syncthreads();
  float all = Join::kNone;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) all = Join::join(all, of_warp[warp]);
  return all;
}

// Calls f with a typed null pointer after the element.
template <class F>
void with_element(Element element, F f) {
  if (element == Element::kF32)
    f(static_cast<float*>(nullptr));
  else
    f(static_cast<__nv_bfloat16*>(nullptr));
}

inline unsigned int blocks_for(int64_t n) {
  constexpr int64_t kMost = 1 << 20;  // the kernels stride over what is left
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return static_cast<unsigned int>(blocks < kMost ? blocks : kMost);
}

}  // namespace retort::kernels::cuda
