// A shared variable is read that nobody has set: on a device it holds what the block before left there.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& sums = shared<float[kThreads], struct Sums>();
  sums[threadIdx.x] += 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) *y = sums[7];
}

void unset_shared() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads}, nullptr, &y);
  check(y, 1.0f);
}

}  // namespace retort::emulation::faults
