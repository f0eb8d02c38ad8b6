#include <array>
#include <atomic>

#include "kernels/cuda_ops.h"

namespace retort::kernels::cuda {
namespace {

// By kind of device; set once, before there are tensors.
constinit std::array<std::atomic<const Ops*>, static_cast<size_t>(at::COMPILE_TIME_MAX_DEVICE_TYPES)>
    provided;

}  // namespace

void provide(at::DeviceType type, const Ops& ops) { provided.at(static_cast<size_t>(type)) = &ops; }

const Ops* ops_for(const at::Tensor& x) {
  if (x.is_cpu() || (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16)) return nullptr;
  return x.is_cuda() ? &device_ops() : provided.at(static_cast<size_t>(x.device().type())).load();
}

}  // namespace retort::kernels::cuda
