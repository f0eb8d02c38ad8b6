// Whose kernels take a tensor: the CUDA kernels on a GPU, or those that were provided for another kind of device. The
// room's operations ask ops_for() and nothing else.
//
// The program links neither the CUDA kernels nor libtorch_cuda, which drags in libraries of gigabytes that a CPU machine
// lacks; load() brings both in when a device is wanted (kernels/cuda/plugin.h). Compiled and emulated (docs/cuda.md), not
// yet run on a device.
#pragma once

#include <string>

#include "kernels/cuda/ops.h"

namespace retort::kernels::cuda {

// Makes CUDA tensors possible; later calls return the first one's answer: empty, or why there are none (no
// plugin, one of another version, a library that the loader lacks, no device). Call it before the first backward():
// LibTorch settles then which devices it has, and libtorch_cuda comes too late.
std::string load();
// Kernels for a kind of device that LibTorch knows without us. They outlive every tensor there.
void provide(at::DeviceType type, const Ops& ops);
// The kernels that take x, f32 or bf16; nullptr where there are none: on the CPU, of other dtypes.
const Ops* ops_for(const at::Tensor& x);
inline bool takes(const at::Tensor& x) { return ops_for(x) != nullptr; }
const Ops& device_ops();  // a GPU's

}  // namespace retort::kernels::cuda
