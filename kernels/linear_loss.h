// The head and the loss, fused: logits exist for one chunk of rows at a time, and loss and gradients come out
// of one pass. Nothing of size [N, V] is ever allocated; peak memory is flat in N.
//
//   linear_cross_entropy   sum over valid rows of -log softmax(h W^T)[label]
//   linear_distill         sum over terms of weight * loss(student logits, teacher's signal), a teacher's
//                          logits made in the same chunk from its hidden states and its own head
//
// N rows (tokens), D width, V the student's vocabulary, U <= V tokens that it has in common with its teacher,
// C rows of a chunk, K labels of a row. h_ND, weight_VD: f32 or bf16; labels_N i64, -100 ignored (no loss, no
// gradient, for every term). Logits, softmax, loss and reductions are f32.
// The result is a differentiable f32 scalar, a SUM over rows: callers divide by their own global count.
// Gradients: h_ND and weight_VD in their own dtype (weight accumulated in f32 over chunks).
// Throws ShapeError. Rank rule: none; kernels know no ranks. Sources: docs/distillation.md, and Wijmans et
// al. 2024 ("Cut your losses") for the idea of never forming the logits.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

namespace retort::kernels {

inline constexpr int64_t kIgnoredLabel = -100;

struct LinearLossOptions {
  int64_t chunk_rows = 0;  // 0: on the CPU 8 MiB of f32 logits, yet 512 to 2048 rows; 2048 elsewhere
  double softcap = 0.0;    // logits become softcap * tanh(logits / softcap); 0: none
};

at::Tensor linear_cross_entropy(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                const at::Tensor& labels_N, const LinearLossOptions& options = {});

// One teacher: row n's distribution is softmax(softcap(hidden_n W^T)) over the tokens in common. W may have
// any number of rows from there on: they are padding.
struct TeacherHead {
  at::Tensor hidden_ND;  // width may differ from the student's
  at::Tensor weight_VD;
  double softcap = 0.0;
  double weight = 1.0;       // of this teacher in a mixture, >= 0
  at::Tensor weight_N = {};  // f32, a weight for each row instead: for teachers of some sources only
};

// A distribution as few labels a row: what a cache holds, or the top of a head's.
struct SparseLabels {
  at::Tensor ids_NK = {};      // i64; 0 where padded
  at::Tensor weights_NK = {};  // f32; 0 where padded
  at::Tensor rest_N = {};      // f32: what all other ids hold; undefined: nothing, the labels are all
  bool defined() const { return ids_NK.defined(); }
};

// What teachers say of the rows: nothing, a distribution p = sum_i w_i softmax(z_i) / sum_i w_i of one or
// several heads, or labels.
struct TeacherSignal {
  std::vector<TeacherHead> heads = {};
  SparseLabels labels = {};
  int64_t vocabulary = 0;    // U; 0: the fewest rows of any head, the student's included
  at::Tensor places_N = {};  // i64: where each row stands in the corpus, which names its random draws
};

// What a term of linear_distill sees: the chunk's valid rows, logits f32 and already softcapped.
struct LogitRows {
  at::Tensor student_CV;
  at::Tensor teacher_CV;     // [C, U] logits, or log p of a mixture; undefined without heads
  at::Tensor labels_C;       // all valid
  SparseLabels sparse = {};  // of these rows; may be undefined
  at::Tensor places_C = {};  // may be undefined
  int64_t vocabulary = 0;    // U; 0: V
  // The columns that a loss with a teacher compares: [C, U] of the student's logits or of their gradient.
  at::Tensor common(const at::Tensor& x_CV) const {
    return vocabulary > 0 && vocabulary < x_CV.size(1) ? x_CV.narrow(1, 0, vocabulary) : x_CV;
  }
};

// One loss on a chunk of rows: a pure function. Returns the sum over rows (f32 scalar, detached); when
// `gradient_CV` is defined it ADDS scale * d(sum)/d(student logits) to it.
using RowLoss = std::function<at::Tensor(const LogitRows& rows, double scale, at::Tensor& gradient_CV)>;

struct LossTerm {
  RowLoss loss;
  double weight = 1.0;
};

struct LinearDistillResult {
  at::Tensor sum;                 // differentiable: sum of weight_i * part_i
  std::vector<at::Tensor> parts;  // each term's unweighted sum, detached
};

LinearDistillResult linear_distill(const at::Tensor& h_ND, const at::Tensor& weight_VD,
                                   const TeacherSignal& teacher, const at::Tensor& labels_N,
                                   const std::vector<LossTerm>& terms, const LinearLossOptions& options = {});

// Cross-entropy as a term; kernels/row_losses.h has the others.
RowLoss cross_entropy_rows();

}  // namespace retort::kernels
