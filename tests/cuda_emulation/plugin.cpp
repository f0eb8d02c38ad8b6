// The emulated kernels as a library that is opened on demand, as libretort_cuda.so is.
#include "kernels/cuda/plugin.h"

#include <stdexcept>

const char* retort_cuda_stamp() { return RETORT_PLUGIN_STAMP; }
const char* retort_cuda_start() { return nullptr; }
const retort::kernels::cuda::Table* retort_cuda_kernels() {
  return &retort::kernels::cuda::emulated::table();
}
void retort_cuda_enqueue(const at::Tensor&,
                         const std::function<void(retort::kernels::cuda::Stream)>& kernels) {
  kernels(nullptr);
}
retort::kernels::DeviceGraph* retort_cuda_capture(const at::Device&, const std::function<void()>&) {
  throw std::runtime_error("emulated kernels have no graphs");
}
