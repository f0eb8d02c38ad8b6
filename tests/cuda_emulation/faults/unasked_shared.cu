// Variables and dynamic shared memory that together need a request, which the launch does not make for the latter alone.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& values = shared<float[(20 << 10) / 4], struct Values>();
  values[threadIdx.x] = dynamic_shared<float>()[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) *y = values[0];
}

void unasked_shared() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads, 30 << 10}, nullptr, &y);
}

}  // namespace retort::emulation::faults
