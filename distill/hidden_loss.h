// Losses on hidden states. Pairs of a student's and a teacher's layer are compared, and the loss is the mean
// over the pairs. By default the student's layer i of L is paired with the teacher's layer
// round((i + 1) L_t / L) - 1 (Jiao et al. 2020, TinyBERT, arXiv 1909.10351, section 3.1). Widths may differ:
// the objective then learns a projection objective.NAME.I.weight [D_t, D_s], which starts as
// N(0, 1 / sqrt(D_s)). B batch, T tokens, D width.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "distill/loss.h"
#include "distill/teacher.h"
#include "models/model.h"

namespace retort::distill {

// What a loss is made from.
struct Sides {
  const models::Model& student;
  const Teacher& teacher;
  models::Parameters& learned;  // where the projections are declared
  std::string name;             // of the loss, for their names
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

// From options.layers and teacher_layers; by default all the student's layers (the last one, when `last`).
// ConfigError for layers that do not exist and for lists of different lengths.
std::vector<LayerPair> layer_pairs(const LossOptions& options, int64_t student_layers, int64_t teacher_layers,
                                   bool last);

// The same, of losses on pairs of layer outputs: they have no other options.
void check_pairs(const LossOptions& options, const LayerShape& student, const LayerShape& teacher);

// How far the rows of one pair differ: [M, D_t] on both sides, a value a row.
using RowDistance = std::function<at::Tensor(const at::Tensor& student_MD, const at::Tensor& teacher_MD)>;
// Pairs of layer outputs, the student's through a learned projection.
std::vector<PairLoss> projected_pairs(const LossOptions& options, const Sides& sides,
                                      const RowDistance& distance);

}  // namespace retort::distill
