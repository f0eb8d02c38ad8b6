// What libretort_cuda.so gives (core/cuda_plugin.h): the kernels, and how they are enqueued on a device. Emulated kernels
// can be such a library too (tests/cuda_emulation/plugin.cpp).
#pragma once

#include <ATen/ATen.h>

#include <functional>

#include "kernels/cuda/table.h"
#include "kernels/device_graph.h"

extern "C" {
const char* retort_cuda_stamp();  // of core/cuda_plugin.h
// Makes CUDA tensors possible; nullptr, or why there are none.
const char* retort_cuda_start();
const retort::kernels::cuda::Table* retort_cuda_kernels();
// Calls `kernels` with the current stream of the tensor's device; a launch that the device refuses is known here.
void retort_cuda_enqueue(const at::Tensor& on,
                         const std::function<void(retort::kernels::cuda::Stream)>& kernels);
// kernels/device_graph.h; the caller owns it.
retort::kernels::DeviceGraph* retort_cuda_capture(const at::Device& device,
                                                  const std::function<void()>& work);
}
