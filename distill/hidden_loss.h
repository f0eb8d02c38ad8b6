// Losses on hidden states: pairs of a student's and a teacher's layer are compared, each on its own, and the
// loss is their mean. By default the student's layer i of L stands beside the teacher's round((i + 1) L_t /
// L) - 1 (Jiao et al. 2020, TinyBERT, arXiv 1909.10351, section 3.1). Widths may differ: a learned projection
// objective.NAME.I.weight [D_t, D_s] belongs to the objective (models/parameters.h, Role::kObjective) and
// starts as N(0, 1 / sqrt(D_s)). B batch, T tokens, D width.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distill/loss.h"
#include "distill/teacher.h"
#include "models/model.h"

namespace retort::distill {

// Whom a loss compares, while it is made.
struct Sides {
  models::Model& student;  // declares the projections
  const Teacher& teacher;
  std::string name;  // of the loss, for theirs
};

// Which rows count: those with a label. document_BT as in models/model.h.
struct HiddenRows {
  at::Tensor valid_BT;  // bool
  at::Tensor document_BT = {};
};

struct PairLoss {
  int64_t student = 0, teacher = 0;  // layers
  // The sum over the rows that count, differentiable, f32. The teacher's side carries no gradient.
  std::function<at::Tensor(const models::LayerTap& student, const models::LayerTap& teacher,
                           const HiddenRows& rows)>
      sum = {};
};

struct LayerPair {
  int64_t student = 0, teacher = 0;
};

// From `layers` and `teacher_layers`, or by default all the student's (its last, when `last`). ConfigError
// for layers that are not there and for lists of different length.
std::vector<LayerPair> layer_pairs(const LossOptions& options, int64_t student_layers, int64_t teacher_layers,
                                   bool last);

// One pair's comparison of rows [M, D_t]: a value a row.
using RowDistance = std::function<at::Tensor(const at::Tensor& student_MD, const at::Tensor& teacher_MD)>;
// Pairs of layer outputs, the student's through a learned projection.
std::vector<PairLoss> projected_pairs(const LossOptions& options, const Sides& sides,
                                      const RowDistance& distance);

}  // namespace retort::distill
