// A live teacher's distribution as few labels a row, the way a cache holds it (distill/teacher_cache.h), so
// that losses on labels can be tried without one. C rows, U tokens in common, K labels.
#pragma once

#include "kernels/linear_loss.h"

namespace retort::distill {

inline constexpr int64_t kDraws = 50, kTopK = 64;  // where a recipe names none

// softmax(z / T).
at::Tensor softened(const at::Tensor& logits_CU, double temperature);

// K = `draws` independent draws from p with replacement, each of weight 1 / draws; an id may come several
// times. Draw i of a row depends on (seed, its place in the corpus, i) alone,
// as a capture's do. ConfigError without places.
kernels::SparseLabels draw_labels(const at::Tensor& p_CU, int64_t draws, uint64_t seed,
                                  const at::Tensor& places_C);

// The k likeliest ids of the rows' teacher, falling, and the mass of the rest: from its labels, which are cut
// to k of them (0: all), or from its logits (0: kTopK).
kernels::SparseLabels top_labels(const kernels::LogitRows& rows, int64_t k, double temperature);

}  // namespace retort::distill
