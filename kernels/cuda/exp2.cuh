// 2^x in one instruction, with exp2f's error. What is below 2^-126 becomes 0, for which exp2f has three instructions
// more. tests/cuda_emulation/include has the twin of this header for g++.
#pragma once

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

__device__ __forceinline__ float exp2_or_zero(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
