// Runs a teacher over a corpus once and keeps its signal (distill/teacher_cache.h).
//
//   sampled  N ids drawn from p = softmax(z / T) with replacement, as counts: E[count / N] = p, so a student
//            that learns from them has the full distribution's expected gradient (Anshumann et al. 2025,
//            arXiv 2503.16870)
//   top_k    the K likeliest ids, their probabilities, and the mass of the rest
//
// The corpus is read in windows of `window` tokens from each block's start; every token is captured. Draw i
// of a token depends on (seed, its place in the corpus, i) and nothing else, so interrupted work that is
// done again, on any number of ranks, writes the same bytes as long as the teacher's logits have the same
// bits. Collective: rank r of R makes blocks r, r + R, ... and skips those that are there and whole. Throws
// ConfigError for blocks of another capture, NonFiniteError naming the token. z [C, V]: logits of C rows.
#pragma once

#include <atomic>

#include "comm/comm.h"
#include "core/log.h"
#include "core/section.h"
#include "distill/teacher_cache.h"
#include "models/model.h"

namespace retort::distill {

struct CaptureOptions {
  std::string kind = "sampled";
  int64_t draws = 50, k = 64;
  double temperature = 1.0;
  std::string precision = "auto";
  int64_t block_tokens = int64_t{1} << 18;
  int64_t size() const { return kind == "sampled" ? draws : k; }
  void describe(Section& s);
};

// Adds the labels of C consecutive tokens, the first at `place`. `logits_CV`: f32, capped.
void add_labels(const CacheFacts& facts, const at::Tensor& logits_CV, int64_t place, BlockLabels& out);

struct CaptureReport {
  int64_t made = 0, found = 0;  // blocks of this rank
  bool stopped = false;         // by `stop`: the block at hand is lost, the others are kept
};

// `rows`: windows of one forward pass. Files go to `cache`, which is made.
CaptureReport capture(models::Model& teacher, const data::TokenShards& corpus, const CacheFacts& facts,
                      int64_t rows, const Path& cache, comm::Comm& comm, FileSystem& files, Log& log,
                      const std::atomic<bool>& stop);

// What a token's labels are expected to cost on disk, bytes, with `distinct` ids of them.
double cache_bytes_per_token(const CaptureOptions& options, int64_t vocabulary, double distinct);

}  // namespace retort::distill
