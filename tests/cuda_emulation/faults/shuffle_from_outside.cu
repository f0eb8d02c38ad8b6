// Half a warp exchanges, with a distance that reaches into the other half.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0x0000ffff, 1.0f, 16);
}

void shuffle_from_outside() {
  std::vector<float> y(kWarp);
  launch(kernel, {1u, kWarp}, nullptr, y.data());
}

}  // namespace retort::emulation::faults
