// NEFTune (Jain et al. 2023, arXiv 2310.05914, algorithm 1): noise on the embeddings of the tokens that are trained on,
//
//   e' = e + u,   u ~ U(-1, 1) alpha / sqrt(L D)
//
// with L the tokens of the token's own document in its row where documents are isolated, so that neither padding nor what
// is packed beside a document changes its noise; else those of the row. A number follows from (seed, sample, place in
// the row, channel), and a sample's number from step and row: no split of a step and no restart changes a bit. Objectives
// add it to what they train and to nothing else. A value; any thread.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>

#include "data/batch_stream.h"

namespace retort::train {

class Objective;

struct EmbeddingNoise {
  double alpha = 0.0;  // 0: none
  uint64_t seed = 0;

  // [B, T, D] in f32 for embeddings of `width` channels, where the batch's tokens are; undefined without noise.
  at::Tensor operator()(const data::Batch& batch, int64_t width) const;
  std::string not_repeatable() const {  // train/objective.h
    return alpha == 0.0 ? "" : "noise on embeddings comes from the host";
  }
};

// train/objective.h's, with the noise.
std::unique_ptr<Objective> make_cross_entropy(const EmbeddingNoise& noise);

}  // namespace retort::train
