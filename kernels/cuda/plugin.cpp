#include "kernels/cuda/plugin.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

#include <string>

using retort::kernels::cuda::Stream;

const char* retort_cuda_stamp() { return RETORT_PLUGIN_STAMP; }

// LibTorch's own half comes first: who asks whether it has CUDA before that is told no for good.
const char* retort_cuda_start() {
  static const std::string why = []() -> std::string {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
    if (c10::cuda::device_count() == 0) return "no CUDA device";
    return at::hasCUDA() ? "" : "libtorch_cuda was loaded after a backward pass";
  }();
  return why.empty() ? nullptr : why.c_str();
}

const retort::kernels::cuda::Table* retort_cuda_kernels() { return &retort::kernels::cuda::device::table(); }

void retort_cuda_enqueue(const at::Tensor& on, const std::function<void(Stream)>& kernels) {
  const c10::cuda::CUDAGuard device(on.device());
  kernels(c10::cuda::getCurrentCUDAStream(on.get_device()).stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}
