// How much a layer's positions resemble each other, in teacher and student (Wang et al. 2021, MiniLMv2, arXiv
// 2012.15828): with x cut into R heads of width E / R anew,
//
//   A_tj = softmax over j of x_t . x_j / sqrt(E / R),   j <= t and in t's document
//   loss = sum over positions t that count, mean over heads, of KL(A^teacher_t || A^student_t)
//
// Widths E and head counts of the two sides are free, as long as R divides both widths. The gradient is made
// in the forward pass, one row of the batch at a time: memory R T^2. f32 or f64. Throws ConfigError.
#pragma once

#include <ATen/ATen.h>

#include "distill/hidden_loss.h"

namespace retort::distill {

// x [B, T, heads, width] of either side; differentiable in the student's.
at::Tensor relation_kl(const at::Tensor& student_BTHK, const at::Tensor& teacher_BTHK, int64_t relation_heads,
                       const HiddenRows& rows);

}  // namespace retort::distill
