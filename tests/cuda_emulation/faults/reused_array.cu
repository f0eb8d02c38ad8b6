// The second sum overwrites the array while slower warps still read the first. Whoever runs threads to their
// next barrier sees nothing: only the order tells.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __device__ float sum(float value) {
  auto& of_warp = shared<float[kThreads / kWarp], struct OfWarp>();
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;  // a __syncthreads() is missing above
  __syncthreads();
  float all = 0.0f;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) all += of_warp[warp];
  return all;
}

static __global__ void kernel(float* y) {
  const float first = sum(1.0f), second = sum(2.0f);
  if (threadIdx.x == 0) *y = first + second;
}

void reused_array() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads}, nullptr, &y);
  check(y, 3 * kThreads / kWarp);
}

}  // namespace retort::emulation::faults
