// The plain version of this room's operations: a short composite of LibTorch's, which LibTorch differentiates
// itself. It defines what the fused versions must compute, is the fp64 oracle and the peer of tests and
// benchmarks, and serves the dtypes and devices for which there is no fused version.
// Math in f32, or in f64 when the input is f64. Shapes as in each operation's own header, unchecked here.
#pragma once

#include <ATen/ATen.h>

#include "kernels/attention.h"
#include "kernels/rope.h"

namespace retort::kernels::reference {

at::Tensor rms_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps, bool unit_offset);
at::Tensor layer_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, const at::Tensor& bias_D,
                      double eps);
at::Tensor swiglu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor geglu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor relu2glu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor gelu_tanh(const at::Tensor& x_NF);
at::Tensor rope(const at::Tensor& x_BTHK, const RopeTables& tables, const at::Tensor& positions_BT);

// True where query t of T may see key s of S: bool [1 or B, 1, T, S].
at::Tensor visible_BTS(const AttentionMask& mask, int64_t queries, int64_t keys, const at::Device& device);
// The scores written out: memory B H T S.
at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale);

// Sums over the rows whose label is not -100, from whole logits: memory N V.
at::Tensor cross_entropy(const at::Tensor& logits_NV, const at::Tensor& labels_N);
at::Tensor forward_kl(const at::Tensor& student_NV, const at::Tensor& teacher_NV, const at::Tensor& labels_N,
                      double temperature);  // T^2 KL(p_T || q_T)

}  // namespace retort::kernels::reference
