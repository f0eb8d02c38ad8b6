#include "data/answer_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "data/batch_stream.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::TemporaryDirectory;

struct Sample {
  int32_t prompt;                // tokens, 100, 101, ...
  std::vector<int32_t> answers;  // tokens of each, all of one value
};

class Answers : public ::testing::Test {
 protected:
  // Each answer's tokens are 10 and the document's number, from 0.
  std::shared_ptr<const TokenShards> write(const std::string& name, const std::vector<Sample>& samples,
                                           ShardKind kind, const std::vector<uint8_t>& rated = {}) {
    const auto tokenizer = make_byte_tokenizer();
    TokenShardWriter writer(local_files(), directory_ / name, *tokenizer, "test", 16, true, kind);
    int32_t document = 0;
    for (const Sample& sample : samples)
      for (size_t i = 0; i < sample.answers.size(); ++i, ++document) {
        std::vector<int32_t> prompt;
        for (int32_t at = 0; at < sample.prompt; ++at) prompt.push_back(100 + at);
        writer.add(prompt, 1, false, kRead);
        const uint8_t learned = kind == ShardKind::kPairs ? (i == 0 ? kLearned : kLearnedAsWorse)
                                                          : rated.at(static_cast<size_t>(document));
        writer.add(std::vector<int32_t>(static_cast<size_t>(sample.answers[i]), 10 + document), 1, true,
                   learned);
      }
    writer.finish();
    return std::make_shared<const TokenShards>(directory_ / name);
  }
  TemporaryDirectory directory_;
};

// Three pairs, and one whose prompt fills the row.
const std::vector<Sample> kPairs = {{3, {2, 4}}, {2, {9, 1}}, {8, {1, 1}}, {1, {1, 2}}};

std::vector<int64_t> row(const at::Tensor& x_BT, int64_t b) {
  const at::Tensor one = x_BT[b].contiguous();
  return {one.const_data_ptr<int64_t>(), one.const_data_ptr<int64_t>() + one.numel()};
}

}  // namespace

TEST_F(Answers, ArePairsOfRowsWhereBothHaveALabel) {
  const auto shards = write("a", kPairs, ShardKind::kPairs);
  const AnswerRows rows(*shards, shards->size(), 8);
  EXPECT_EQ(rows.rows_a_sample(), 2);
  EXPECT_EQ(rows.rows(), 6);
  EXPECT_EQ(rows.cut, 1);        // of 2 + 9
  EXPECT_EQ(rows.unlearned, 1);  // 8 tokens of prompt
  for (int64_t i = 0; i < rows.rows(); ++i) EXPECT_EQ(rows.chosen(i), i % 2 == 0);
  EXPECT_EQ(rows.row(2).length, 8);
  EXPECT_EQ(AnswerRows(*shards, 12, 8).rows(), 2) << "documents that end within the limit";
}

TEST_F(Answers, ThatACutMakesAlikeAreLeftOut) {
  const auto tokenizer = make_byte_tokenizer();
  {
    TokenShardWriter writer(local_files(), directory_ / "a", *tokenizer, "test", 100, true,
                            ShardKind::kPairs);
    for (int i = 0; i < 2; ++i) {
      writer.add(std::vector<int32_t>{1, 2}, 1, false, kRead);
      writer.add(std::vector<int32_t>{3, 4, 5 + i}, 1, true, i == 0 ? kLearned : kLearnedAsWorse);
    }
    writer.finish();
  }
  const TokenShards shards(directory_ / "a");
  EXPECT_EQ(AnswerRows(shards, shards.size(), 5).rows(), 2);
  const AnswerRows cut(shards, shards.size(), 4);
  EXPECT_EQ(cut.rows(), 0);
  EXPECT_EQ(cut.alike, 1);
}

TEST_F(Answers, ThatDoNotAlternateAreRefused) {
  const auto tokenizer = make_byte_tokenizer();
  {
    TokenShardWriter writer(local_files(), directory_ / "a", *tokenizer, "test", 100, true,
                            ShardKind::kPairs);
    for (int i = 0; i < 2; ++i) {
      writer.add(std::vector<int32_t>{1, 2}, 1, false, kRead);
      writer.add(std::vector<int32_t>{3 + i}, 1, true, kLearned);
    }
    writer.finish();
  }
  const TokenShards shards(directory_ / "a");
  EXPECT_THROW(AnswerRows(shards, shards.size(), 8), DataError);
}

TEST_F(Answers, OfAPairAreSideBySideInABatch) {
  const auto shards = write("a", kPairs, ShardKind::kPairs);
  const BatchStream stream(shards, {.sequence = 8, .rows = 4, .seed = 3});
  std::set<std::vector<int64_t>> seen;
  for (int64_t number = 0; number < 3; ++number) {  // two epochs of three pairs
    const Batch batch = stream.batch(number);
    ASSERT_EQ(batch.tokens_BT.size(0), 4);
    EXPECT_LE(batch.tokens_BT.size(1), 8);
    for (int64_t b = 0; b < 4; b += 2) {
      EXPECT_TRUE(batch.chosen_B[b].item<bool>());
      EXPECT_FALSE(batch.chosen_B[b + 1].item<bool>());
      // Document numbers of a pair are neighbours, the even one first.
      const std::vector<int64_t> chosen = row(batch.labels_BT, b), rejected = row(batch.labels_BT, b + 1);
      const int64_t better = *std::ranges::max_element(chosen), worse = *std::ranges::max_element(rejected);
      EXPECT_EQ(better % 2, 0);
      EXPECT_EQ(worse, better + 1);
      seen.insert(row(batch.tokens_BT, b));
    }
  }
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(stream.samples_per_epoch(), 6);
  EXPECT_EQ(stream.samples_of(2.0), 12);
  EXPECT_EQ(stream.taken(8), std::vector<int64_t>{8});
}

// Only answers are labels, and a batch is as wide as its longest row.
TEST_F(Answers, AreTheLabels) {
  const auto shards = write("a", {{3, {2, 4}}}, ShardKind::kPairs);
  const Batch batch = BatchStream(shards, {.sequence = 100, .rows = 2, .shuffle = false}).batch(0);
  EXPECT_EQ(row(batch.tokens_BT, 0), (std::vector<int64_t>{100, 101, 102, 10, 10, 0, 0}));
  EXPECT_EQ(row(batch.labels_BT, 0), (std::vector<int64_t>{-100, -100, 10, 10, -100, -100, -100}));
  EXPECT_EQ(row(batch.labels_BT, 1), (std::vector<int64_t>{-100, -100, 11, 11, 11, 11, -100}));
  EXPECT_FALSE(batch.document_BT.defined());
}

TEST_F(Answers, ThatAreRatedAreRowsByThemselves) {
  const auto shards = write("a", {{2, {3}}, {1, {1}}}, ShardKind::kRated, {kLearnedAsWorse, kLearned});
  EXPECT_EQ(shards->kind(), ShardKind::kRated);
  const Batch batch = BatchStream(shards, {.sequence = 8, .rows = 2, .shuffle = false}).batch(0);
  EXPECT_FALSE(batch.chosen_B[0].item<bool>());
  EXPECT_TRUE(batch.chosen_B[1].item<bool>());
}

TEST_F(Answers, OddBatchesAndMixedKindsAreRefused) {
  const auto pairs = write("a", kPairs, ShardKind::kPairs),
             rated = write("b", {{2, {3}}}, ShardKind::kRated, {kLearned});
  EXPECT_THROW(BatchStream(pairs, {.sequence = 8, .rows = 3}), ConfigError);
  EXPECT_THROW(BatchStream({{"a", pairs}, {"b", rated}}, {.sequence = 8, .rows = 2}), ConfigError);
  EXPECT_THROW(BatchStream(pairs, {.sequence = 1, .rows = 2}), DataError);
}

}  // namespace retort::data
