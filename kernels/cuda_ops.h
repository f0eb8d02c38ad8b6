// The CUDA versions of this room's operations, on tensors: they check nothing (the operation did), allocate
// their results and enqueue on the current stream. CMake builds one of two sources, cuda_ops.cpp or
// no_cuda.cpp; a caller holds a CUDA tensor, which exists only with the first.
//
// The program does not link libtorch_cuda, which drags in libraries of gigabytes that a CPU machine lacks;
// load() brings it in when a device is wanted.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "kernels/gate.h"

namespace retort::kernels::cuda {

// Makes CUDA tensors possible; later calls return the first one's answer: empty, or why there are none (a
// build without CUDA, a library that the loader lacks, no device). Call it before the first backward():
// LibTorch settles then which devices it has, and libtorch_cuda comes too late.
std::string load();
// True for the tensors that the functions below take: CUDA, f32 or bf16.
bool takes(const at::Tensor& x);

std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x_ND, const at::Tensor& w_D,
                                           double eps);  // y, rstd
std::pair<at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& dy_ND, const at::Tensor& x_ND,
                                                    const at::Tensor& w_D,
                                                    const at::Tensor& rstd_N);  // dx, dw f32

// kind(a) u; u undefined: no factor.
at::Tensor gate(Gate kind, const at::Tensor& a, const at::Tensor& u);
std::pair<at::Tensor, at::Tensor> gate_backward(Gate kind, const at::Tensor& dy, const at::Tensor& a,
                                                const at::Tensor& u);

// Losses, f32 on the device: of each row, then sums.
at::Tensor cross_entropy_in_place(const at::Tensor& logits_CV, const at::Tensor& labels_C,
                                  bool want_gradient);
at::Tensor cross_entropy(const at::Tensor& logits_CV, const at::Tensor& labels_C, double scale,
                         const at::Tensor& gradient_CV);
at::Tensor forward_kl(const at::Tensor& student_CV, const at::Tensor& teacher_CV, double temperature,
                      double scale, const at::Tensor& gradient_CV);

// dequantize(quantize(x)) on ggml's blocks of 32: "q8_0" (else "q4_0"). x f32, its last dimension a multiple
// of 32.
at::Tensor round_to_blocks(const at::Tensor& x, bool q8_0);

}  // namespace retort::kernels::cuda
