// Answers to compare, a row each: the documents of pairs or rated shards, cut to the start that fits into
// `sequence` tokens. Prompts begin alike and are cut alike, so that a pair differs by its answers alone. A pair
// is two rows side by side, chosen before rejected, and stays or goes as a whole: it goes where the cut leaves
// an answer without a label, or both rows alike. A pure function of the shards and the options; the rows are the
// same for any rank count. Reads document starts and loss masks once, on one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "data/packing.h"

namespace retort::data {

class AnswerRows {
 public:
  // Documents that end within the first `tokens` tokens of shards that are no text.
  AnswerRows(const TokenShards& shards, int64_t tokens, int64_t sequence);
  int64_t rows() const { return std::ssize(segments_); }
  int64_t rows_a_sample() const { return rows_a_sample_; }  // 2 of pairs, which must stay together
  const Segment& row(int64_t number) const { return segments_[static_cast<size_t>(number)]; }
  bool chosen(int64_t number) const { return chosen_[static_cast<size_t>(number)]; }  // or good

  // For the log: rows that were cut, and pairs or answers that are left out.
  int64_t cut = 0, unlearned = 0, alike = 0;

 private:
  int64_t rows_a_sample_;
  std::vector<Segment> segments_;
  std::vector<bool> chosen_;
};

}  // namespace retort::data
