#include "core/upload.h"

#include "core/error.h"

namespace retort {

at::Tensor upload(const at::Tensor& x, const at::Device& device) {
  if (x.device() == device) return x;
  RETORT_ASSERT(x.is_cpu());
  if (device.is_meta()) return x.to(device);  // nothing is copied
  return x.contiguous().pin_memory().to(device, /*non_blocking=*/true);
}

}  // namespace retort
