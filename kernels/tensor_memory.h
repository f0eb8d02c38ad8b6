// The memory of a tensor that comes and goes, while tensor, size and views of it stay: what is read only now and then needs
// no more. Of any device, by its own allocator. Until it has memory nobody may read it. Any thread, one at a time.
#pragma once

#include <ATen/core/Tensor.h>

namespace retort::kernels {

void give_memory(const at::Tensor& tensor);  // whose values are undefined
void take_memory(const at::Tensor& tensor);

}  // namespace retort::kernels
