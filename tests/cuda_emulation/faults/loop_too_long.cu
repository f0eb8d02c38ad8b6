// The loop's bound is off by one: the last row reads past its end.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y, int width) {
  float sum = 0.0f;
  for (int i = threadIdx.x; i <= width; i += kThreads) sum += x[blockIdx.x * width + i];
  sum = over_group<Sum, kThreads>(sum);
  if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

void loop_too_long() {
  const std::vector<float> x(2 * 31, 1.0f);
  std::vector<float> y(2);
  launch(kernel, {2u, kThreads}, nullptr, x.data(), y.data(), 31);
  check(y[0], 31);
}

}  // namespace retort::emulation::faults
