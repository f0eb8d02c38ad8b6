// Batches by number: i64 tokens, labels and positions [B, T]. A sample is a row of `sequence` tokens of one source with
// its next-token labels: a window, documents packed together (data/packing.h), or an answer (data/answer_rows.h).
// Sources are mixed by weight (data/mixture.h), and the rows of an epoch come in the order of a keyed permutation (seed,
// epoch). Batch m holds samples [m * rows, (m + 1) * rows) of that endless order: a pure function of (data, options, m),
// so there is no state to save but a number, and any rank count sees the same samples (docs/data.md). batch() is
// const and thread-safe; data/prefetcher.h runs it ahead on its own thread. Throws ConfigError for options, and DataError
// for a corpus shorter than one window or sources of different tokenizers.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/answer_rows.h"
#include "data/mixture.h"
#include "data/packing.h"
#include "data/token_shards.h"

namespace retort::data {

inline constexpr int64_t kIgnored = -100;  // a label that predicts nothing

// tokens, labels, positions and document numbers, all i64 [B, T] on the host: a batch is made there, and
// whoever multiplies on a device copies it. Positions count from the document's first token in the row,
// documents from 0 in each row; both are undefined where documents are not isolated. corpus_BT is where each
// token is in the corpus of its row's source, source_B (i64) the number of that source: what is stored
// beside a corpus is found by the two.
struct Batch {
  at::Tensor tokens_BT, labels_BT, positions_BT, document_BT;
  std::vector<int64_t> samples;  // their numbers in the endless order, one a row
  at::Tensor corpus_BT = {}, source_B = {};
  at::Tensor chosen_B = {};      // bool: the row's answer is the chosen one, or good; undefined of text
  int64_t valid_labels() const;  // labels that are not kIgnored
};

struct BatchOptions {
  int64_t sequence = 256;  // tokens a row
  int64_t rows = 8;        // rows of one micro-batch
  uint64_t seed = 0;
  bool shuffle = true;
  bool isolate_documents = false;  // no attention, and no prediction, across documents
  int64_t limit = 0;               // tokens of each source that are trained on, from its start; 0: all
  bool pack = false;               // whole documents, isolated, instead of windows
  LongDocuments long_documents = LongDocuments::kSplit;  // of packed rows
};

// Why rows of `sequence` tokens cannot be cut from so many tokens of each source; "" when they can.
std::string limit_misfit(int64_t limit, int64_t sequence);

// A corpus with its share of a mixture. The name is for people: "stage:text", a directory.
struct Source {
  std::string name;
  std::shared_ptr<const TokenShards> shards;
  double weight = 1.0;
};

// The rows of `tokens` tokens that start at these places of the corpus; no samples, source 0.
Batch windows(const TokenShards& shards, const std::vector<int64_t>& starts, int64_t tokens,
              bool isolate_documents);

class BatchStream {
 public:
  struct Place {
    size_t source;
    int64_t row;  // of the source's: a window starts at row * sequence
  };
  BatchStream(std::vector<Source> sources, BatchOptions options);
  BatchStream(std::shared_ptr<const TokenShards> shards, BatchOptions options);  // one source
  Batch batch(int64_t number) const;
  Place place(int64_t sample) const;
  // What the first `samples` samples took of each source.
  std::vector<int64_t> taken(int64_t samples) const;
  int64_t samples_per_epoch(size_t source = 0) const { return rows_.at(source); }
  // The samples in which the first source is read that many times.
  int64_t samples_of(double epochs) const;
  const PackedRows* packed(size_t source) const;                      // nullptr for windows
  const AnswerRows* answers(size_t source) const;                     // nullptr for text
  ShardKind kind() const { return sources_.front().shards->kind(); }  // of every source
  const std::vector<Source>& sources() const { return sources_; }
  const BatchOptions& options() const { return options_; }

 private:
  void add_answers(const Source& source, int64_t tokens);
  Batch answers_batch(int64_t number) const;

  std::vector<Source> sources_;
  BatchOptions options_;
  int64_t unit_ = 1;  // rows that stay together
  Mixture mixture_;
  std::vector<int64_t> rows_;        // of each source
  std::vector<PackedRows> packed_;   // of each source; none of windows
  std::vector<AnswerRows> answers_;  // of each source; none of text
};

}  // namespace retort::data
