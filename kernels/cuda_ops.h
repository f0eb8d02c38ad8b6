// The CUDA kernels on a device. Which of the two sources is built, cuda_ops.cpp or no_cuda.cpp, is CMake's
// choice; callers hold a CUDA tensor, which cannot exist without it.
//
// The program does not link libtorch_cuda, which drags in libraries of gigabytes that a CPU machine lacks;
// load() brings it in when a device is wanted. Compiled and emulated (docs/cuda.md), not yet run on a device.
#pragma once

#include <string>

#include "kernels/cuda/ops.h"

namespace retort::kernels::cuda {

// Makes CUDA tensors possible; later calls return the first one's answer: empty, or why there are none (a
// build without CUDA, a library that the loader lacks, no device). Call it before the first backward():
// LibTorch settles then which devices it has, and libtorch_cuda comes too late.
std::string load();
// True for the tensors that the functions below take: CUDA, f32 or bf16.
bool takes(const at::Tensor& x);
const Ops& device_ops();

// --- what the room's operations call (ops.h has the rest)

inline std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x_ND, const at::Tensor& w_D, double eps) {
  return device_ops().rms_norm(x_ND, w_D, eps);
}
inline std::pair<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                           const at::Tensor& w_D, const at::Tensor& rstd_N) {
  return device_ops().rms_norm_backward(dy_ND, x_ND, w_D, rstd_N);
}
inline at::Tensor gate(Gate kind, const at::Tensor& a, const at::Tensor& u) {
  return device_ops().gate(kind, a, u);
}
inline std::pair<at::Tensor, at::Tensor> gate_backward(Gate kind, const at::Tensor& dy, const at::Tensor& a,
                                                       const at::Tensor& u) {
  return device_ops().gate_backward(kind, dy, a, u);
}

// Losses, f32 on the device: of each row where the logits become their gradient; sums where scale times the
// gradient is added to gradient_CV (when that is defined).
inline at::Tensor cross_entropy_in_place(const at::Tensor& logits_CV, const at::Tensor& labels_C,
                                         bool want_gradient) {
  const RowTerms terms{.cross_entropy = 1.0};
  return device_ops().row_losses(logits_CV, {}, labels_C, terms, want_gradient).cross_entropy_C;
}
inline at::Tensor cross_entropy(const at::Tensor& logits_CV, const at::Tensor& labels_C, double scale,
                                const at::Tensor& gradient_CV) {
  const RowTerms terms{.cross_entropy = scale};
  return device_ops().add_row_losses(logits_CV, {}, labels_C, terms, gradient_CV).cross_entropy_C.sum();
}
inline at::Tensor forward_kl(const at::Tensor& student_CV, const at::Tensor& teacher_CV, double temperature,
                             double scale, const at::Tensor& gradient_CV) {
  const RowTerms terms{.kind = RowLoss::kForwardKl, .weight = scale, .temperature = temperature};
  return device_ops().add_row_losses(student_CV, teacher_CV, {}, terms, gradient_CV).loss_C.sum();
}

}  // namespace retort::kernels::cuda
