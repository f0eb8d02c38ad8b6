// The twin of cuda_ops.cpp for a build without CUDA: there are no CUDA tensors, so nothing else is ever
// called.
#include "core/error.h"
#include "kernels/cuda_ops.h"

namespace retort::kernels::cuda {

namespace {

[[noreturn]] void refuse() { fail<InternalError>("[kernels] this program was built without CUDA"); }

}  // namespace

std::string load() { return "this program was built without CUDA"; }
bool takes(const at::Tensor&) { return false; }

std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor&, const at::Tensor&, double) { refuse(); }
std::pair<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                    const at::Tensor&) {
  refuse();
}
at::Tensor gate(Gate, const at::Tensor&, const at::Tensor&) { refuse(); }
std::pair<at::Tensor, at::Tensor> gate_backward(Gate, const at::Tensor&, const at::Tensor&,
                                                const at::Tensor&) {
  refuse();
}
at::Tensor cross_entropy_in_place(const at::Tensor&, const at::Tensor&, bool) { refuse(); }
at::Tensor cross_entropy(const at::Tensor&, const at::Tensor&, double, const at::Tensor&) { refuse(); }
at::Tensor forward_kl(const at::Tensor&, const at::Tensor&, double, double, const at::Tensor&) { refuse(); }
at::Tensor round_to_blocks(const at::Tensor&, bool) { refuse(); }

}  // namespace retort::kernels::cuda
