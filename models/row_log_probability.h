// How likely a model finds rows of tokens: of each row the sum of log p(label) over its valid labels, and how
// many they are. Scores of a text, of the answers to choose from, and of the better and the worse text of a
// pair are made of it. A row's number does not depend on the rows beside it, but for the rounding of the
// model's own products: each row has a head product of its own, and its tokens are summed in f64, in one order.
// B rows, T tokens a row.
#pragma once

#include "models/model.h"

namespace retort::models {

struct RowLogProbability {
  at::Tensor sum_B;     // f32, nats; differentiable
  at::Tensor labels_B;  // i64
};

// labels_BT: i64, kernels::kIgnoredLabel where a token predicts nothing.
RowLogProbability row_log_probability(Model& model, const TokenBlock& block, const at::Tensor& labels_BT);
// Of hidden states that are there already.
RowLogProbability row_log_probability(const at::Tensor& h_BTD, const Head& head, const at::Tensor& labels_BT);

}  // namespace retort::models
