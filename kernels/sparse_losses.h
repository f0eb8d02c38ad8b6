// Cross-entropy against few labels a row, at temperature T, as a term of linear_distill; distill/labels.h
// chooses the labels. Over the U tokens in common, with w_k the weights, r the rest, Q = sum_k q_k, W = sum_k
// w_k:
//
//   T^2 (- sum_k w_k log q_k - r log(1 - Q))      without a rest the second term is absent
//   d/dz_j = T ((W + r) q_j - w_j) among the labels, T (W + r - r / (1 - Q)) q_j outside
//
// Source: Anshumann et al. 2025 (arXiv 2503.16870), section 3, for the rest as one ghost token.
#pragma once

#include <functional>

#include "kernels/linear_loss.h"

namespace retort::kernels {

// The sum over rows; adds scale times the gradient to gradient_CV when it is defined. ids_NK and weights_NK
// have the chunk's C rows. Labels of weight 0 are padding; the same id twice is one id with the sum, but with
// a rest ids must differ. 1 - Q comes from the other ids' own exponentials, and counts as at least 2^-24,
// where it has no gradient. f32 rows run in a fused loop or a kernel of their device; the plain version serves
// others, and f64 for tests. Throws ShapeError.
at::Tensor sparse_cross_entropy(const LogitRows& rows, const SparseLabels& labels, double temperature,
                                double scale, at::Tensor& gradient_CV);

// As a term, with labels that follow from a chunk's rows: the cache's, or the teacher's logits', f32 or bf16.
RowLoss sparse_rows(std::function<SparseLabels(const LogitRows&)> labels_of, double temperature);

}  // namespace retort::kernels
