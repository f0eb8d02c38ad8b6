// Two threads add to one element of global memory.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) { y[threadIdx.x / 2] += 1.0f; }

void lanes_race() {
  std::vector<float> y(kWarp / 2);
  launch(kernel, {1u, kWarp}, nullptr, y.data());
  check(y[3], 2.0f);
}

}  // namespace retort::emulation::faults
