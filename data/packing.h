// Whole documents packed into rows of `sequence` tokens: best fit, longest first, so that a row holds as many as it can
// and few of its tokens are padding. What does not fit into a row alone is split over rows, cut, or dropped. Documents
// without a label that is learned are left out. A pure function of the shards and the options; the rows are the same
// for any rank count. Reads document starts and loss masks once, on one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/token_shards.h"

namespace retort::data {

// What becomes of a document that is longer than a row.
enum class LongDocuments { kSplit, kCut, kDrop };
LongDocuments long_documents(const std::string& name);  // one of long_document_names(): split, cut, drop
std::vector<std::string> long_document_names();

// Tokens [begin, begin + length) of the corpus, of one document.
struct Segment {
  int64_t begin, length;
  bool continues = false;  // the document's next token is in another row: it is the last token's label
};

class PackedRows {
 public:
  // Packs the first `tokens` tokens of the shards.
  PackedRows(const TokenShards& shards, int64_t tokens, int64_t sequence, LongDocuments longer);
  int64_t rows() const { return std::ssize(first_) - 1; }
  std::span<const Segment> row(int64_t number) const;

  // For the log.
  int64_t documents = 0;  // packed
  int64_t split = 0, cut = 0, dropped = 0;
  int64_t unlearned = 0;  // left out: none of their labels is learned
  double filled() const;  // share of the rows' tokens that are documents'

 private:
  std::vector<Segment> segments_;  // row by row
  std::vector<int64_t> first_;     // of each row, then segments_.size()
  int64_t sequence_;
};

}  // namespace retort::data
