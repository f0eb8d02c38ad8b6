// The mask of a shuffle leaves out lanes that call it.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) { y[threadIdx.x] = __shfl_xor_sync(0x0000ffff, 1.0f, 1); }

void mask_without_lane() {
  std::vector<float> y(kWarp);
  launch(kernel, {1u, kWarp}, nullptr, y.data());
}

}  // namespace retort::emulation::faults
