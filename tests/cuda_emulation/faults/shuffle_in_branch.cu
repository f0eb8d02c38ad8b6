// A shuffle of all lanes is in a branch that half of them take.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  float value = 1.0f;
  if (threadIdx.x % 2 == 0) value += __shfl_down_sync(kAllLanes, value, 2);
  __syncthreads();
  y[threadIdx.x] = value;
}

void shuffle_in_branch() {
  std::vector<float> y(kWarp);
  launch(kernel, {1u, kWarp}, nullptr, y.data());
}

}  // namespace retort::emulation::faults
