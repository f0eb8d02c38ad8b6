// Losses on a chunk of logit rows, as terms of linear_distill (kernels/linear_loss.h): one pass over the
// logits gives the loss and adds the gradient. z student, z^t teacher, q = softmax(z), p = softmax(z^t).
//
//   cross_entropy_rows()     -log q_label             d/dz = q - onehot(label)
//   forward_kl_rows(T)       T^2 KL(p_T || q_T)       d/dz = T (q_T - p_T)      tempered by T
//
// f32, dense; rows are summed in order, in f64 (on a GPU by LibTorch, in f32). Throws ShapeError.
#pragma once

#include "kernels/linear_loss.h"

namespace retort::kernels {

RowLoss forward_kl_rows(double temperature);

// Cross-entropy that, when `want_gradient`, overwrites the logits (f32 or bf16) with their gradient. The loss of
// each row, f64 on the CPU and f32 elsewhere; sum_in_order() (kernels/row_sums.h) adds them up.
at::Tensor cross_entropy_in_place(at::Tensor& logits_CV, const at::Tensor& labels_C, bool want_gradient);

}  // namespace retort::kernels
