// A row of 31 leaves the next one's runs off a multiple of 16 bytes.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y, int width) {
  float run[kRun];
  get(x + blockIdx.x * width, run);
  y[blockIdx.x] = run[0];
}

void unaligned_run() {
  const std::vector<float> x(2 * 31, 1.0f);
  std::vector<float> y(2);
  launch(kernel, {2u, 1u}, nullptr, x.data(), y.data(), 31);
}

}  // namespace retort::emulation::faults
