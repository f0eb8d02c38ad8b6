// A shared array has an element too few.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& of_warp = shared<float[kThreads / kWarp - 1], struct OfWarp>();
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) *y = of_warp[0];
}

void short_array() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads}, nullptr, &y);
}

}  // namespace retort::emulation::faults
