#include "kernels/device_graph.h"

#include <array>
#include <atomic>

#include "core/cuda_plugin.h"
#include "kernels/cuda/plugin.h"

namespace retort::kernels {
namespace {

// By kind of device; set once, before there are tensors.
constinit std::array<std::atomic<CaptureGraph>, static_cast<size_t>(at::COMPILE_TIME_MAX_DEVICE_TYPES)>
    provided;

std::unique_ptr<DeviceGraph> capture_cuda(const at::Device& device, const std::function<void()>& work) {
  static auto* const capture =
      CudaPlugin::get().function<decltype(retort_cuda_capture)>("retort_cuda_capture");
  return std::unique_ptr<DeviceGraph>(capture(device, work));
}

}  // namespace

void provide_graphs(at::DeviceType type, CaptureGraph capture) {
  provided.at(static_cast<size_t>(type)) = capture;
}

CaptureGraph graphs_for(const at::Device& device) {
  return device.is_cuda() ? &capture_cuda : provided.at(static_cast<size_t>(device.type())).load();
}

}  // namespace retort::kernels
