// Runs of eight, and nothing for what is left of a row of 31.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y, int n) {
  const int i = threadIdx.x * kRun;
  if (i + kRun > n) return;
  float run[kRun];
  get(x + i, run);
  put(y + i, run);
}

void missing_tail() {
  const std::vector<float> x(31, 1.0f);
  std::vector<float> y(31, NAN);
  launch(kernel, {1u, kWarp}, nullptr, x.data(), y.data(), 31);
  for (const float value : y) check(value, 1.0f);
}

}  // namespace retort::emulation::faults
