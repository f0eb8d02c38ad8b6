// Nothing is wrong: a sum over a block, with every barrier that it needs.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y) {
  for (int round = 0; round < 2; ++round) {
    const float all = over_group<Sum, kThreads>(x[blockIdx.x * kThreads + threadIdx.x] * (round + 1));
    if (threadIdx.x == 0) y[2 * blockIdx.x + round] = all;
  }
}

void no_fault() {
  const std::vector<float> x(3 * kThreads, 1.0f);
  std::vector<float> y(6);
  launch(kernel, {3u, kThreads}, nullptr, x.data(), y.data());
  for (int i = 0; i < 6; ++i) check(y[i], kThreads * (i % 2 + 1));
}

}  // namespace retort::emulation::faults
