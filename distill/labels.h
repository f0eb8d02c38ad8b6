// A live teacher's distribution as a few labels a row, in a cache's form (distill/teacher_cache.h), so that
// losses on labels can be tried without a cache. C rows, U tokens in common, K labels.
#pragma once

#include "kernels/linear_loss.h"

namespace retort::distill {

inline constexpr int64_t kDraws = 50, kTopK = 64;  // when a recipe names no number

// softmax(z / T), f32 of bf16 logits.
at::Tensor softened(const at::Tensor& logits_CU, double temperature);

// K = `draws` independent draws from p with replacement, each of weight 1 / draws; an id may come several
// times. As in a capture, draw i of a row depends on (seed, the row's place in the corpus, i) alone.
// ConfigError without places.
kernels::SparseLabels draw_labels(const at::Tensor& p_CU, int64_t draws, uint64_t seed,
                                  const at::Tensor& places_C);

// The teacher's k likeliest ids, in falling order, and the mass of the rest: from its labels, of which the
// first k are taken (0: all), or from its logits (0: kTopK).
kernels::SparseLabels top_labels(const kernels::LogitRows& rows, int64_t k, double temperature);

}  // namespace retort::distill
