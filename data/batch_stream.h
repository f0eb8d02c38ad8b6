// Batches by number. A sample is a window of `sequence` tokens with its next-token labels; the windows of an
// epoch are visited in the order of a keyed permutation (seed, epoch). Batch m holds samples
// [m * rows, (m + 1) * rows) of that endless order, so a batch is a pure function of (data, options, m): there
// is no state to save but a number, no state per rank, and any rank count sees the same samples.
// Windows start at multiples of `sequence`; the labels' last token is the next window's first.
// batch() is const and thread-safe; Prefetcher runs it ahead on its own thread.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "data/token_shards.h"

namespace retort::data {

// tokens, labels (-100 ignored), positions and document numbers, all i64 [B, T].
// positions and document are undefined when `isolate_documents` is off: rows are then plain 0 .. T-1.
struct Batch {
  at::Tensor tokens_BT, labels_BT, positions_BT, document_BT;
  std::vector<int64_t> samples;  // global sample numbers
  int64_t valid_labels() const;
};

struct BatchOptions {
  int64_t sequence = 256;         // tokens a row
  int64_t rows = 8;               // rows of one micro-batch
  uint64_t seed = 0;
  bool shuffle = true;
  bool isolate_documents = false;  // no attention across documents, positions from the document's start
};

class BatchStream {
 public:
  BatchStream(std::shared_ptr<const TokenShards> shards, BatchOptions options);
  Batch batch(int64_t number) const;
  int64_t samples_per_epoch() const;
  const BatchOptions& options() const { return options_; }
  const TokenShards& shards() const { return *shards_; }

 private:
  std::shared_ptr<const TokenShards> shards_;
  BatchOptions options_;
};

// Hands out batches of `numbers(k)`, k = first, first + 1, ..., made ahead by one thread.
class Prefetcher {
 public:
  Prefetcher(const BatchStream& stream, std::function<int64_t(int64_t)> number_of, int64_t first, int64_t ahead = 4);
  ~Prefetcher();
  Batch next();  // rethrows what making the batch threw

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace retort::data
