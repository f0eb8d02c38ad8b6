// The head and the loss, fused: logits exist for one chunk of rows at a time, and loss and gradients come out
// of one pass. Nothing of size [N, V] is ever allocated; peak memory is flat in N.
//
//   linear_cross_entropy   sum over valid rows of -log softmax(h W^T)[label]
//   linear_distill         sum over terms of weight * loss(student logits, teacher logits), the teacher's
//                          logits made in the same chunk from its hidden states and its own head
//
// N rows (tokens), D width, V vocabulary, C rows of a chunk. h_ND, weight_VD: f32 or bf16; labels_N i64,
// -100 ignored (no loss, no gradient, for every term). Logits, softmax, loss and reductions are f32.
// The result is a differentiable f32 scalar, a SUM over rows: callers divide by their own global count.
// Gradients: h_ND and weight_VD in their own dtype (weight accumulated in f32 over chunks).
// Throws ShapeError. Rank rule: none; kernels know no ranks. Sources: docs/distillation.md, and Wijmans et
// al. 2024 ("Cut your losses") for the idea of never forming the logits.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <optional>
#include <vector>

namespace retort::kernels {

inline constexpr int64_t kIgnoredLabel = -100;

struct LinearLossOptions {
  int64_t chunk_rows = 0;  // 0: chosen so that a chunk's logits stay within a few MB on the CPU
  double softcap = 0.0;    // logits become softcap * tanh(logits / softcap); 0: none
};

at::Tensor linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                const at::Tensor& labels_N, const LinearLossOptions& options = {});

// What a term of linear_distill sees: f32 logits of the chunk's valid rows, already softcapped.
struct LogitRows {
  at::Tensor student_CV;
  at::Tensor teacher_CV;  // undefined when there is no teacher
  at::Tensor labels_C;    // all valid
};

// One loss on a chunk of rows: a pure function. Returns the sum over rows (f32 scalar, detached); when
// `gradient_CV` is defined it ADDS scale * d(sum)/d(student logits) to it.
using RowLoss = std::function<at::Tensor(const LogitRows& rows, double scale, at::Tensor& gradient_CV)>;

struct LossTerm {
  RowLoss loss;
  double weight = 1.0;
};

struct TeacherHead {
  at::Tensor hidden_ND;  // width may differ from the student's
  at::Tensor weight_VD;  // same V
  double softcap = 0.0;
};

struct LinearDistillResult {
  at::Tensor sum;                 // differentiable: sum of weight_i * part_i
  std::vector<at::Tensor> parts;  // each term's unweighted sum, detached
};

LinearDistillResult linear_distill(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                   const std::optional<TeacherHead>& teacher, const at::Tensor& labels_N,
                                   const std::vector<LossTerm>& terms, const LinearLossOptions& options = {});

// Cross-entropy as a term; kernels/row_losses.h has the others.
RowLoss cross_entropy_rows();

}  // namespace retort::kernels
