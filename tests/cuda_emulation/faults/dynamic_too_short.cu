// The launch asks for less dynamic shared memory than the kernel writes.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto* values = dynamic_shared<float>();
  values[threadIdx.x] = 1.0f;
  __syncthreads();
  if (threadIdx.x == 0) *y = values[1];
}

void dynamic_too_short() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads, (kThreads - 1) * sizeof(float)}, nullptr, &y);
}

}  // namespace retort::emulation::faults
