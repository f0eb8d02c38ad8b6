// How much the positions of a layer resemble each other, compared between teacher and student (Wang et al.
// 2021, MiniLMv2, arXiv 2012.15828). With x divided into R heads of width E / R,
//
//   A_tj = softmax over j of x_t . x_j / sqrt(E / R),   j <= t and in t's document
//   loss = sum over positions t that count, mean over heads, of KL(A^teacher_t || A^student_t)
//
// The two sides' widths E and numbers of heads may differ. The gradient is made in the forward pass, one row
// of the batch at a time: memory R T^2. f32 or f64. ConfigError where R does not divide both widths.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "distill/hidden_loss.h"

namespace retort::distill {

// Why R relation heads do not divide the sides' widths; "" when they do.
std::string relation_misfit(int64_t relation_heads, int64_t student_width, int64_t teacher_width);

// Both sides' x [B, T, heads, width]; differentiable in the student's.
at::Tensor relation_kl(const at::Tensor& student_BTHK, const at::Tensor& teacher_BTHK, int64_t relation_heads,
                       const HiddenRows& rows);

}  // namespace retort::distill
