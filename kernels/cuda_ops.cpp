#include "kernels/cuda_ops.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <dlfcn.h>

namespace retort::kernels::cuda {

namespace {

// On the current stream of the tensor's device; a launch that the device refuses is known here, not later.
void enqueue(const at::Tensor& on, const std::function<void(Stream)>& kernels) {
  const c10::cuda::CUDAGuard device(on.device());
  kernels(c10::cuda::getCurrentCUDAStream(on.get_device()).stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace

bool compiled() { return true; }

std::string load() {
  static const std::string why = []() -> std::string {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
    if (c10::cuda::device_count() == 0) return "no CUDA device";
    return at::hasCUDA() ? "" : "libtorch_cuda was loaded after a backward pass";
  }();
  return why;
}

const Ops& device_ops() {
  static const Ops ops(device::table(), enqueue);
  return ops;
}

}  // namespace retort::kernels::cuda
