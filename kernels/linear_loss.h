// The head and the loss, fused: logits exist for one chunk of rows at a time, so that memory does not grow
// with the number of rows. Kernels know no ranks. Sources: docs/distillation.md; Wijmans et al. 2024 (arXiv
// 2411.09009) for never forming the logits. Throws ShapeError. N rows (tokens), D width, V the student's
// vocabulary, U <= V tokens that it has in common with its teacher, C rows of a chunk, K labels of a row.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/head.h"

namespace retort::kernels {

namespace cuda {
enum class RowLossKind;  // kernels/cuda/table.h
}

inline constexpr int64_t kIgnoredLabel = -100;

// In all of these h_ND and weights are f32 or bf16; labels_N are i64, and kIgnoredLabel leaves a row out: no
// loss, no gradient. Logits, softmax and losses are f32. A gradient has its input's dtype; the weight's is
// accumulated in f32 over chunks. chunk_rows 0: as kernels/chunk_rows.h has it. Sums are differentiable f32
// scalars, which callers divide by a count of their own; their gradients are made in the forward pass, and
// backward runs once.

// Sum over rows of -log softmax(logits)[label].
at::Tensor linear_cross_entropy(const at::Tensor& h_ND, const Head& head, const at::Tensor& labels_N,
                                int64_t chunk_rows = 0);

// -log softmax(logits)[label] of each row, f64 [N], and 0 of ignored ones. Backward makes the logits again,
// so that every row's loss may have a factor of its own.
at::Tensor linear_token_losses(const at::Tensor& h_ND, const Head& head, const at::Tensor& labels_N,
                               int64_t chunk_rows = 0);

// One teacher: row n's distribution is the softmax of the head's logits of hidden_n, over the tokens in
// common. The head may have any number of rows from there on: they are padding.
struct TeacherHead {
  at::Tensor hidden_ND;  // width may differ from the student's
  Head head;
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
  at::Tensor places_N = {};  // i64: each row's place in the corpus, which names its random draws
};

// What a term of linear_distill sees: the chunk's valid rows, logits f32 and already softcapped. Where a kernel makes all
// terms, both models' logits may be bf16, and rows of ignored labels are there too.
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

// One loss on a chunk of rows: a pure function, and how a device's kernels know it.
struct RowLoss {
  // The sum over rows (f32 scalar, detached); when `gradient_CV` is defined ADDS scale * d(sum)/d(student logits)
  // to it.
  using Add = std::function<at::Tensor(const LogitRows& rows, double scale, at::Tensor& gradient_CV)>;
  // Data, so that one kernel can make several losses in one pass. Few labels a row follow from the rows.
  struct Kernel {
    cuda::RowLossKind kind;
    double temperature = 1.0, mix = 0.0;
    std::function<SparseLabels(const LogitRows& rows)> labels_of = {};
  };

  RowLoss() = default;
  template <class F>
  requires(std::is_constructible_v<Add, F> && !std::is_same_v<std::remove_cvref_t<F>, RowLoss>)
      RowLoss(F&& function, std::optional<Kernel> on_device = {})
      : add(std::forward<F>(function)), kernel(std::move(on_device)) {}

  explicit operator bool() const { return static_cast<bool>(add); }
  at::Tensor operator()(const LogitRows& rows, double scale, at::Tensor& gradient_CV) const {
    return add(rows, scale, gradient_CV);
  }

  Add add = {};
  std::optional<Kernel> kernel = {};  // empty: no kernel has it
};

struct LossTerm {
  RowLoss loss;
  double weight = 1.0;
};

struct LinearDistillResult {
  at::Tensor sum;                 // differentiable: sum of weight_i * part_i
  std::vector<at::Tensor> parts;  // each term's unweighted sum, detached
};

// Sum over terms of weight * loss(student's logits, teacher's signal). The teacher's logits are made in the
// same chunks. On a device one kernel makes one loss or two, alone or beside cross-entropy, and reads both models' logits
// where they are, bf16 where both are; more go one after another, on f32 copies.
LinearDistillResult linear_distill(const at::Tensor& h_ND, const Head& head, const TeacherSignal& teacher,
                                   const at::Tensor& labels_N, const std::vector<LossTerm>& terms,
                                   int64_t chunk_rows = 0);

// Cross-entropy as a term; kernels/row_losses.h has the others.
RowLoss cross_entropy_rows();

}  // namespace retort::kernels
