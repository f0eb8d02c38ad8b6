// Two halves of the block wait at two barriers.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  if (threadIdx.x < 128) {
    y[threadIdx.x] = 1.0f;
    __syncthreads();
  } else {
    y[threadIdx.x] = 2.0f;
    __syncthreads();
  }
}

void divergent_barrier() {
  std::vector<float> y(kThreads);
  launch(kernel, {1u, kThreads}, nullptr, y.data());
}

}  // namespace retort::emulation::faults
