#include "data/on_device.h"

#include "core/upload.h"

namespace retort::data {

Batch on_device(const Batch& batch, const at::Device& device) {
  Batch out = batch;
  if (device.is_cpu()) return out;
  for (at::Tensor* x : read_by_models(out))
    if (x->defined()) *x = upload(*x, device);
  return out;
}

}  // namespace retort::data
