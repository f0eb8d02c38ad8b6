// More shared memory than any device has.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& values = shared<float[(200 << 10) / 4], struct Values>();
  values[threadIdx.x] = dynamic_shared<float>()[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) *y = values[0];
}

void too_much_shared() {
  float y = 0.0f;
  launch(kernel, {1u, kThreads, 28 << 10}, nullptr, &y);
}

}  // namespace retort::emulation::faults
