#include "data/packing.h"

#include <gmock/gmock.h>

#include <map>
#include <set>

#include "core/random.h"
#include "data/batch_stream.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::Documents;
using retort::testing::TemporaryDirectory;
using retort::testing::write_corpus;
using ::testing::ElementsAre;

// Documents of these lengths; token i of all is i mod 251, so that a place is known by its token.
std::shared_ptr<const TokenShards> of_lengths(const Path& directory, const std::vector<int64_t>& lengths) {
  Documents documents;
  int32_t next = 0;
  for (const int64_t length : lengths) {
    documents.emplace_back();
    for (int64_t i = 0; i < length; ++i) documents.back().push_back(next++ % 251);
  }
  return write_corpus(directory, documents, 1000);
}

std::vector<int64_t> lengths_of(const PackedRows& rows, int64_t row) {
  std::vector<int64_t> out;
  for (const Segment& segment : rows.row(row)) out.push_back(segment.length);
  return out;
}

std::vector<int64_t> numbers(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

}  // namespace

TEST(Packing, PutsTheLongestFirstIntoTheFullestRow) {
  const TemporaryDirectory directory;
  const auto shards = of_lengths(directory / "c", {3, 7, 2, 5, 10, 3, 4});
  const PackedRows rows(*shards, shards->size(), 10, LongDocuments::kSplit);
  ASSERT_EQ(rows.rows(), 4);
  EXPECT_THAT(lengths_of(rows, 0), ElementsAre(10));
  EXPECT_THAT(lengths_of(rows, 1), ElementsAre(7, 3));
  EXPECT_THAT(lengths_of(rows, 2), ElementsAre(5, 4));
  EXPECT_THAT(lengths_of(rows, 3), ElementsAre(3, 2));
  EXPECT_EQ(rows.documents, 7);
  EXPECT_DOUBLE_EQ(rows.filled(), 34.0 / 40.0);
}

// Every token of every document is in one row, whole documents in one piece, for any lengths.
TEST(Packing, KeepsEveryTokenOnce) {
  const TemporaryDirectory directory;
  const Random random(3, "lengths");
  std::vector<int64_t> lengths;
  for (uint64_t i = 0; i < 400; ++i) lengths.push_back(2 + static_cast<int64_t>(random.below(i, 90)));
  const auto shards = of_lengths(directory / "c", lengths);
  for (const int64_t sequence : {8, 33, 64, 200}) {
    const PackedRows rows(*shards, shards->size(), sequence, LongDocuments::kSplit);
    std::set<int64_t> seen;
    for (int64_t row = 0; row < rows.rows(); ++row) {
      int64_t tokens = 0;
      for (const Segment& segment : rows.row(row)) {
        tokens += segment.length;
        const int64_t end = segment.begin + segment.length;
        EXPECT_EQ(shards->document_end(segment.begin), shards->document_end(end - 1));
        EXPECT_EQ(segment.continues, shards->document_end(segment.begin) != end);
        EXPECT_TRUE(!segment.continues || segment.length == sequence);
        for (int64_t at = segment.begin; at < end; ++at) EXPECT_TRUE(seen.insert(at).second);
      }
      EXPECT_LE(tokens, sequence);
    }
    EXPECT_EQ(std::ssize(seen), shards->size());
    EXPECT_GT(rows.filled(), sequence >= 64 ? 0.97 : 0.9) << sequence;
  }
}

TEST(Packing, LongDocumentsAreSplitCutOrDropped) {
  const TemporaryDirectory directory;
  const auto shards = of_lengths(directory / "c", {25, 4, 1});
  const PackedRows split(*shards, shards->size(), 10, LongDocuments::kSplit);
  ASSERT_EQ(split.rows(), 3);
  EXPECT_THAT(lengths_of(split, 2), ElementsAre(5, 4));
  EXPECT_EQ(split.split, 1);
  EXPECT_EQ(split.unlearned, 1) << "one token predicts nothing";
  const PackedRows cut(*shards, shards->size(), 10, LongDocuments::kCut);
  ASSERT_EQ(cut.rows(), 2);
  EXPECT_FALSE(cut.row(0)[0].continues);
  EXPECT_EQ(cut.cut, 1);
  const PackedRows drop(*shards, shards->size(), 10, LongDocuments::kDrop);
  ASSERT_EQ(drop.rows(), 1);
  EXPECT_EQ(drop.dropped, 1);
  EXPECT_EQ(drop.row(0)[0].begin, 25);
}

TEST(Packing, DocumentsWithoutALearnedLabelAreLeftOut) {
  const TemporaryDirectory directory;
  const auto tokenizer = make_byte_tokenizer();
  {
    TokenShardWriter writer(local_files(), directory / "c", *tokenizer, "test", 1000, /*loss_mask=*/true);
    writer.add(std::vector<int32_t>{1, 2, 3}, 3, false, false);
    writer.add(std::vector<int32_t>{4, 5}, 2, true, true);  // the same document
    writer.add(std::vector<int32_t>{6, 7, 8}, 3, false, false);
    writer.finish();
  }
  const auto shards = std::make_shared<const TokenShards>(directory / "c");
  const PackedRows rows(*shards, shards->size(), 8, LongDocuments::kSplit);
  ASSERT_EQ(rows.rows(), 1);
  EXPECT_EQ(rows.documents, 1);
  EXPECT_EQ(rows.unlearned, 1);
  const BatchStream stream(shards, {.sequence = 8, .rows = 1, .pack = true});
  const Batch batch = stream.batch(0);
  EXPECT_THAT(numbers(batch.tokens_BT), ElementsAre(1, 2, 3, 4, 5, 0, 0, 0));
  EXPECT_THAT(numbers(batch.labels_BT),
              ElementsAre(kIgnored, kIgnored, 4, 5, kIgnored, kIgnored, kIgnored, kIgnored));
  // Cut before what is learned, it has no label left.
  const PackedRows cut(*shards, shards->size(), 3, LongDocuments::kCut);
  EXPECT_EQ(cut.rows(), 0);
  EXPECT_EQ(cut.unlearned, 2);
}

TEST(Packing, ABatchHoldsDocumentsApart) {
  const TemporaryDirectory directory;
  const auto shards = of_lengths(directory / "c", {4, 3, 12});
  const BatchStream stream(shards, {.sequence = 9, .rows = 2, .shuffle = false, .pack = true});
  ASSERT_EQ(stream.samples_per_epoch(), 3);
  const Batch batch = stream.batch(0);
  EXPECT_THAT(numbers(batch.tokens_BT[0]), ElementsAre(7, 8, 9, 10, 11, 12, 13, 14, 15));
  EXPECT_THAT(numbers(batch.labels_BT[0]), ElementsAre(8, 9, 10, 11, 12, 13, 14, 15, 16));
  EXPECT_THAT(numbers(batch.tokens_BT[1]), ElementsAre(0, 1, 2, 3, 4, 5, 6, 0, 0));
  EXPECT_THAT(numbers(batch.labels_BT[1]),
              ElementsAre(1, 2, 3, kIgnored, 5, 6, kIgnored, kIgnored, kIgnored));
  EXPECT_THAT(numbers(batch.positions_BT[1]), ElementsAre(0, 1, 2, 3, 0, 1, 2, 0, 1));
  EXPECT_THAT(numbers(batch.document_BT[1]), ElementsAre(0, 0, 0, 0, 1, 1, 1, 2, 2));
  EXPECT_THAT(numbers(batch.corpus_BT[1].slice(0, 0, 7)), ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

}  // namespace retort::data
