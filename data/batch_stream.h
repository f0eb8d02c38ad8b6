// Batches by number. A sample is a window of `sequence` tokens with its next-token labels; the windows of an
// epoch are visited in the order of a keyed permutation (seed, epoch). Batch m holds samples
// [m * rows, (m + 1) * rows) of that endless order, so a batch is a pure function of (data, options, m):
// there is no state to save but a number, no state per rank, and any rank count sees the same samples.
// Windows start at multiples of `sequence`; the labels' last token is the next window's first, and the
// corpus's last token predicts nothing. Tokens behind the last whole window are not trained on.
// batch() is const and thread-safe; data/prefetcher.h runs it ahead on its own thread.
// Throws ConfigError for options and DataError for a corpus shorter than one window.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "data/token_shards.h"

namespace retort::data {

inline constexpr int64_t kIgnored = -100;  // a label that predicts nothing

// tokens, labels, positions and document numbers, all i64 [B, T]. Positions count from the document's first
// token in the row, documents from 0 in each row; both are undefined when `isolate_documents` is off.
// corpus_BT is where each token stands in the corpus: what is stored beside the corpus is found by it.
struct Batch {
  at::Tensor tokens_BT, labels_BT, positions_BT, document_BT;
  std::vector<int64_t> samples;  // their numbers in the endless order, one a row
  at::Tensor corpus_BT = {};
  int64_t valid_labels() const;  // labels that are not kIgnored
};

struct BatchOptions {
  int64_t sequence = 256;  // tokens a row
  int64_t rows = 8;        // rows of one micro-batch
  uint64_t seed = 0;
  bool shuffle = true;
  bool isolate_documents = false;  // no attention, and no prediction, across documents
};

// The rows of `tokens` tokens that start at these places of the corpus; no samples.
Batch windows(const TokenShards& shards, const std::vector<int64_t>& starts, int64_t tokens,
              bool isolate_documents);

class BatchStream {
 public:
  BatchStream(std::shared_ptr<const TokenShards> shards, BatchOptions options);
  Batch batch(int64_t number) const;
  int64_t samples_per_epoch() const { return windows_; }
  int64_t start(int64_t sample) const;  // where its window starts in the corpus
  const BatchOptions& options() const { return options_; }
  const TokenShards& shards() const { return *shards_; }

 private:
  std::shared_ptr<const TokenShards> shards_;
  BatchOptions options_;
  int64_t windows_;
};

}  // namespace retort::data
