// Blocks add to one element, each after the other as it happens here; on a device, at once.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  const float all = over_group<Sum, kThreads>(1.0f);
  if (threadIdx.x == 0) *y += all;
}

void across_blocks() {
  float y = 0.0f;
  launch(kernel, {8u, kThreads}, nullptr, &y);
  check(y, 8 * kThreads);
}

}  // namespace retort::emulation::faults
