// The twin of kernels/cuda/exp2.cuh where g++ compiles the kernels.
#pragma once

#include <cuda_runtime.h>

#include <limits>

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

inline float exp2_or_zero(float x) {
  const float y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
