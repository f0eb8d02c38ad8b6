#include "data/answer_rows.h"

#include <algorithm>

#include "core/error.h"

namespace retort::data {
namespace {

// A document's start that fits into a row; what its labels are to a loss mask: kRead where none is learned.
struct Row {
  Segment segment;
  uint8_t learned = kRead;
  bool cut = false;
};

Row row_of(const TokenShards& shards, int64_t begin, int64_t sequence) {
  const int64_t length = shards.document_end(begin) - begin;
  Row out{{begin, std::min(length, sequence)}, kRead, length > sequence};
  std::vector<uint8_t> mask(static_cast<size_t>(out.segment.length - 1));
  shards.read_loss_mask(begin + 1, mask);
  for (const uint8_t one : mask) out.learned = std::max(out.learned, one);
  return out;
}

bool same_tokens(const TokenShards& shards, const Segment& a, const Segment& b) {
  if (a.length != b.length) return false;
  std::vector<int64_t> left(static_cast<size_t>(a.length)), right(left.size());
  shards.read(a.begin, left);
  shards.read(b.begin, right);
  return left == right;
}

}  // namespace

AnswerRows::AnswerRows(const TokenShards& shards, int64_t tokens, int64_t sequence)
    : rows_a_sample_(shards.kind() == ShardKind::kPairs ? 2 : 1) {
  RETORT_ASSERT(shards.kind() != ShardKind::kText);
  for (int64_t begin = 0; begin < tokens;) {
    std::vector<Row> sample;
    for (int64_t i = 0; i < rows_a_sample_ && begin < tokens; ++i) {
      sample.push_back(row_of(shards, begin, sequence));
      begin = shards.document_end(begin);
    }
    if (std::ssize(sample) < rows_a_sample_ || begin > tokens) break;
    check<DataError>(
        rows_a_sample_ == 1 || (sample[0].learned != kLearnedAsWorse && sample[1].learned != kLearned),
        "[answer rows] the documents of pairs must be chosen, rejected, chosen, ...; at token {} of "
        "{} they are not",
        sample[0].segment.begin, shards.source());
    if (std::ranges::any_of(sample, [](const Row& row) { return row.learned == kRead; })) {
      ++unlearned;
    } else if (rows_a_sample_ == 2 && same_tokens(shards, sample[0].segment, sample[1].segment)) {
      ++alike;
    } else {
      for (const Row& row : sample) {
        segments_.push_back(row.segment);
        chosen_.push_back(row.learned == kLearned);
        cut += row.cut ? 1 : 0;
      }
    }
  }
}

}  // namespace retort::data
