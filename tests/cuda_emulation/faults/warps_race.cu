// Two warps write one element without a barrier between them. The value is the same, the race is real.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& top = shared<float, struct Top>();
  if (threadIdx.x % kWarp == 0) top = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) *y = top;
}

void warps_race() {
  float y = 0.0f;
  launch(kernel, {1u, 2 * kWarp}, nullptr, &y);
  check(y, 1.0f);
}

}  // namespace retort::emulation::faults
