// A warp takes a block of 32 values, a lane one of them. Every product is rounded on its own (__fmul_rn and
// friends are never contracted), so that the values equal formats/ggml_blocks.h bit for bit.
#include <cuda_fp16.h>

#include "kernels/cuda/device.cuh"

namespace retort::kernels::cuda {

namespace {

__device__ float as_half(float x) { return __half2float(__float2half_rn(x)); }
__device__ float inverse_of(float d) { return d != 0.0f ? __fdiv_rn(1.0f, d) : 0.0f; }

// The value of largest magnitude in the warp; of equals the first.
__device__ float extreme_of_warp(float x) {
  int lane = threadIdx.x % kWarp;
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const float other = __shfl_xor_sync(0xffffffff, x, offset);
    const int other_lane = __shfl_xor_sync(0xffffffff, lane, offset);
    const bool larger = fabsf(other) > fabsf(x) || (fabsf(other) == fabsf(x) && other_lane < lane);
    x = larger ? other : x;
    lane = larger ? other_lane : lane;
  }
  return x;
}

// ggml's q8_0: d = amax / 127, code = round(x / d), half away from zero.
__device__ float q8_0(float x, float extreme) {
  const float d = __fdiv_rn(fabsf(extreme), 127.0f);
  const float code = roundf(fminf(fmaxf(__fmul_rn(x, inverse_of(d)), -127.0f), 127.0f));
  return __fmul_rn(code, as_half(d));
}

// ggml's q4_0: d = extreme / -8, code = min(15, trunc(x / d + 8.5)) - 8.
__device__ float q4_0(float x, float extreme) {
  const float d = __fdiv_rn(extreme, -8.0f);
  const float place = __fadd_rn(__fmul_rn(x, inverse_of(d)), 8.5f);
  const float code = truncf(fminf(fmaxf(place, 0.0f), 15.0f)) - 8.0f;
  return __fmul_rn(code, as_half(d));
}

template <BlockFormat kFormat>
__global__ void round_blocks(const float* x, float* y, int64_t n) {
  // n is a multiple of the warp, so a warp's lanes leave the loop together.
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += int64_t{gridDim.x} * kThreads) {
    const float extreme = extreme_of_warp(x[i]);
    y[i] = kFormat == BlockFormat::kQ8_0 ? q8_0(x[i], extreme) : q4_0(x[i], extreme);
  }
}

}  // namespace

void fake_quantize(BlockFormat format, const float* x, float* y, int64_t n, Stream stream) {
  if (n == 0) return;
  const auto kernel =
      format == BlockFormat::kQ8_0 ? round_blocks<BlockFormat::kQ8_0> : round_blocks<BlockFormat::kQ4_0>;
  kernel<<<blocks_for(n), kThreads, 0, stream>>>(x, y, n);
}

}  // namespace retort::kernels::cuda
