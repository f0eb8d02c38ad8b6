// A vector is read through a pointer that is a multiple of 4 bytes only.
#include "tests/cuda_emulation/faults/fault.h"

namespace retort::emulation::faults {

static __global__ void kernel(const float* x, float* y) {
  const float4 four = *reinterpret_cast<const float4*>(x + threadIdx.x);
  y[threadIdx.x] = four.x + four.y + four.z + four.w;
}

void unaligned_vector() {
  alignas(16) static const float x[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  std::vector<float> y(5);
  launch(kernel, {1u, 5u}, nullptr, x, y.data());
}

}  // namespace retort::emulation::faults
