// The warps' sums are read before all warps have written theirs.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& of_warp = shared<float[kThreads / kWarp], struct OfWarp>();
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = 1.0f;
  float all = 0.0f;  // a __syncthreads() is missing here
  for (int warp = 0; warp < kThreads / kWarp; ++warp) all += of_warp[warp];
  if (threadIdx.x == 0) *y = all;
}

void missing_barrier() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads}, nullptr, &y);
  check(y, kThreads / kWarp);
}

}  // namespace retort::emulation::faults
