#include "kernels/cuda_ops.h"

#include "core/cuda_plugin.h"
#include "core/error.h"
#include "kernels/cuda/plugin.h"

namespace retort::kernels::cuda {

std::string load() {
  static const std::string why = []() -> std::string {
    const CudaPlugin& plugin = CudaPlugin::get();
    if (!plugin.missing().empty()) return plugin.missing();
    auto* const start = plugin.function<decltype(retort_cuda_start)>("retort_cuda_start");
    const char* const trouble = start();
    return trouble == nullptr ? "" : with_remedy(trouble);
  }();
  return why;
}

const Ops& device_ops() {
  static const Ops ops = [] {
    const CudaPlugin& plugin = CudaPlugin::get();
    check<InternalError>(plugin.missing().empty(), "[kernels] {}", plugin.missing());
    return Ops(*plugin.function<decltype(retort_cuda_kernels)>("retort_cuda_kernels")(),
               plugin.function<decltype(retort_cuda_enqueue)>("retort_cuda_enqueue"));
  }();
  return ops;
}

}  // namespace retort::kernels::cuda
