// Lanes of a warp exchange through shared memory without a __syncwarp(): they need not run in step.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(float* y) {
  auto& values = shared<float[kWarp], struct Values>();
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  y[threadIdx.x] = values[kWarp - 1 - threadIdx.x];
}

void missing_warp_barrier() {
  std::vector<float> y(kWarp);
  launch(kernel, {1u, kWarp}, nullptr, y.data());
  for (int i = 0; i < kWarp; ++i) check(y[i], static_cast<float>(kWarp - 1 - i));
}

}  // namespace retort::emulation::faults
