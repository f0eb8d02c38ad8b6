// The twin of kernels/cuda/launch.cuh where g++ compiles the kernels: launches run on emulated threads.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <tuple>

#include "kernels/cuda/shared_memory.cuh"

namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER {

using Stream = CUstream_st*;

struct Grid {
  dim3 blocks, threads;
  size_t shared;
  emulation::Where where;
  Grid(dim3 blocks, dim3 threads, size_t shared = 0,
       const emulation::Where& where = emulation::Here::current())
      : blocks(blocks), threads(threads), shared(shared), where(where) {}
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Stream, const Arguments&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  emulation::give({{{grid.blocks.x, grid.blocks.y, grid.blocks.z},
                    {grid.threads.x, grid.threads.y, grid.threads.z},
                    grid.shared,
                    grid.shared > kUnaskedDynamic},
                   [](const void* p) {
                     const auto& c = *static_cast<const Call*>(p);
                     std::apply([&](const auto&... each) { c.kernel(each...); }, c.arguments);
                   },
                   std::make_shared<const Call>(Call{kernel, {static_cast<Parameters>(arguments)...}}),
                   sizeof(Call),
                   grid.where});
}

template <class T, class Tag>
T& shared(const emulation::Where& where = emulation::Here::current()) {
  static const char key = 0;
  return *static_cast<T*>(
      emulation::shared_variable(&key, sizeof(T), alignof(T), __PRETTY_FUNCTION__, where));
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulation::dynamic_shared_memory());
}

}  // namespace retort::kernels::cuda::RETORT_CUDA_PROVIDER
