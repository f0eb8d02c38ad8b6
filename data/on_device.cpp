#include "data/on_device.h"

namespace retort::data {

Batch on_device(const Batch& batch, const at::Device& device) {
  Batch out = batch;
  if (device.is_cpu()) return out;
  for (at::Tensor* x : read_by_models(out))
    if (x->defined()) *x = x->to(device, /*non_blocking=*/true);  // from memory that stays as it is
  return out;
}

}  // namespace retort::data
