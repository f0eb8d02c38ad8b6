// Threads without work leave before a barrier that the others wait at.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y, unsigned int n) {
  if (threadIdx.x >= n) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
}

void exited_thread() {
  const std::vector<float> x(200, 1.0f);
  std::vector<float> y(200);
  launch(kernel, {1u, kThreads}, nullptr, x.data(), y.data(), 200u);
}

}  // namespace retort::emulation::faults
