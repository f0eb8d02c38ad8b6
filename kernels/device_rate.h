// What a device does in products, measured once at the start of a run, as cpu_tuning.h does for the processor: FLOP/s of
// square products in `dtype`, the largest that take a few milliseconds, the best of several. What a training step reaches
// is told as a share of it. The device is waited for.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

double measured_rate(const at::Device& device, at::ScalarType dtype);
void wait_for(const at::Device&
                  device);  // until it has done what was enqueued on the current stream; nothing on the CPU

}  // namespace retort::kernels
