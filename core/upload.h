// Sends a tensor of the host to where it is worked on, and waits for nothing. The copy leaves from pinned memory in the current
// stream of the device: from other memory the driver stages it, and may wait for the stream before that. LibTorch gives the pinned memory
// to others when the copy is through. On the CPU, or where x is there already, x itself.
#pragma once

#include <ATen/ATen.h>

namespace retort {

at::Tensor upload(const at::Tensor& x, const at::Device& device);

}  // namespace retort
