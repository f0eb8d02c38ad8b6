// The twin of cuda_ops.cpp for a build without CUDA: there are no CUDA tensors, so nobody asks for kernels.
#include "core/error.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels::cuda {

bool compiled() { return false; }
std::string load() { return "this program was built without CUDA"; }
const Ops& device_ops() { fail<InternalError>("[kernels] this program was built without CUDA"); }

}  // namespace retort::kernels::cuda
