// How a kernel is launched and where its shared memory comes from: what g++ cannot parse of a .cu file is
// here alone. tests/cuda_emulation/include has the twin of this header for g++.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/cuda/shared_memory.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

using Stream = cudaStream_t;

struct Grid {
  dim3 blocks, threads;
  size_t shared = 0;  // bytes of dynamic shared memory
};

// launch(kernel, {blocks, threads}, stream, arguments...)
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Stream stream, const Arguments&... arguments) {
  if (grid.shared > kUnaskedDynamic)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared));
  kernel<<<grid.blocks, grid.threads, grid.shared, stream>>>(static_cast<Parameters>(arguments)...);
}

// A __shared__ variable of the block: float (&sums)[8] = shared<float[8], struct Sums>(). A tag declared in
// the call is the calling function's own, so that two functions never get the same variable.
template <class T, class Tag>
__device__ __forceinline__ T& shared() {
  __shared__ T variable;
  return variable;
}

// The Grid's dynamic shared memory.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
