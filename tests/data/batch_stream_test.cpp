#include "data/batch_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::concatenation;
using retort::testing::Documents;
using retort::testing::random_documents;
using retort::testing::same_bits;
using retort::testing::TemporaryDirectory;
using retort::testing::write_corpus;

// Bytes under another name.
class OtherBytes final : public Tokenizer {
 public:
  std::string name() const override { return "other"; }
  int64_t vocabulary() const override { return 256; }
  std::vector<int32_t> encode(std::string_view) const override { return {}; }
  std::string decode(std::span<const int32_t>) const override { return {}; }
  std::string_view token_bytes(int32_t) const override { return {}; }
  bool is_special(int32_t) const override { return false; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override { return "00000000deadbeef"; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }
};

std::vector<int64_t> numbers(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

// `count` tokens in one document.
std::shared_ptr<const TokenShards> corpus(const TemporaryDirectory& directory, int64_t count) {
  std::vector<int32_t> document(static_cast<size_t>(count));
  for (size_t i = 0; i < document.size(); ++i) document[i] = static_cast<int32_t>(i * i % 251);
  return write_corpus(directory / ("c" + std::to_string(count)), {document}, 50);
}

}  // namespace

TEST(BatchStream, LabelsAreTheNextTokensUpToTheEndOfTheCorpus) {
  const TemporaryDirectory directory;
  for (const int64_t size : {60, 61, 65}) {  // the last window ends with the corpus, or does not
    const auto shards = corpus(directory, size);
    std::vector<int64_t> all(static_cast<size_t>(size));
    shards->read(0, all);
    const BatchStream stream(shards, {.sequence = 6, .rows = 2, .shuffle = false});
    ASSERT_EQ(stream.samples_per_epoch(), 10);
    for (int64_t number = 0; number < 5; ++number) {
      const Batch batch = stream.batch(number);
      ASSERT_EQ(batch.tokens_BT.sizes(), (std::vector<int64_t>{2, 6}));
      EXPECT_FALSE(batch.positions_BT.defined());
      EXPECT_FALSE(batch.document_BT.defined());
      EXPECT_TRUE(same_bits(batch.corpus_BT, at::arange(number * 12, number * 12 + 12).view({2, 6})));
      const auto tokens = numbers(batch.tokens_BT), labels = numbers(batch.labels_BT);
      for (int64_t i = 0; i < 12; ++i) {
        const int64_t at = number * 12 + i;
        EXPECT_EQ(tokens[static_cast<size_t>(i)], all[static_cast<size_t>(at)]);
        EXPECT_EQ(labels[static_cast<size_t>(i)],
                  at + 1 < size ? all[static_cast<size_t>(at + 1)] : kIgnored);
      }
      EXPECT_EQ(batch.valid_labels(), number == 4 && size == 60 ? 11 : 12);
    }
  }
}

TEST(BatchStream, EveryEpochVisitsEveryWindowOnceInItsOwnOrder) {
  const TemporaryDirectory directory;
  const BatchStream stream(corpus(directory, 103), {.sequence = 5, .rows = 3, .seed = 4});
  ASSERT_EQ(stream.samples_per_epoch(), 20);
  std::set<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < 20; ++i) order.push_back(stream.place(epoch * 20 + i).row);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  }
  EXPECT_EQ(orders.size(), 4u);
}

TEST(BatchStream, ALimitKeepsToTheStartOfTheCorpus) {
  const TemporaryDirectory directory;
  const BatchStream stream(corpus(directory, 103), {.sequence = 5, .rows = 3, .seed = 4, .limit = 23});
  ASSERT_EQ(stream.samples_per_epoch(), 4);
  std::set<int64_t> starts;
  for (int64_t i = 0; i < 40; ++i) starts.insert(stream.place(i).row);
  EXPECT_EQ(starts, (std::set<int64_t>{0, 1, 2, 3}));
}

TEST(BatchStream, ABatchIsAPureFunctionOfItsNumber) {
  const TemporaryDirectory directory;
  const auto shards = corpus(directory, 400);
  const BatchStream a(shards, {.sequence = 7, .rows = 4, .seed = 1}),
      b(shards, {.sequence = 7, .rows = 4, .seed = 1});
  const BatchStream other(shards, {.sequence = 7, .rows = 4, .seed = 2});
  int differ = 0;
  for (const int64_t number : {31, 2, 17, 2, 0}) {
    b.batch(number + 1);
    EXPECT_TRUE(same_bits(a.batch(number).tokens_BT, b.batch(number).tokens_BT));
    EXPECT_TRUE(same_bits(a.batch(number).labels_BT, b.batch(number).labels_BT));
    differ += !same_bits(a.batch(number).tokens_BT, other.batch(number).tokens_BT);
  }
  EXPECT_GT(differ, 0);
}

// Steps of `ranks` ranks with `micro` batches each, stopped after each of `stops` and continued by another
// count of ranks: the samples are those of one uninterrupted rank, none lost and none doubled.
TEST(BatchStream, Fault27AnyRankCountAndStopPointSeesTheSameSamples) {
  const TemporaryDirectory directory;
  const auto shards = corpus(directory, 333);
  const BatchStream stream(shards, {.sequence = 4, .rows = 2, .seed = 9});
  constexpr int64_t kSteps = 20, kBatches = 12;  // a step's batches over all ranks
  std::vector<int64_t> expected;
  for (int64_t sample = 0; sample < kSteps * kBatches * 2; ++sample) expected.push_back(sample);
  for (int64_t stop = 0; stop <= kSteps; ++stop)
    for (const int64_t before : {1, 2, 3, 4})
      for (const int64_t after : {1, 3, 6}) {
        std::vector<int64_t> samples, tokens;
        for (int64_t step = 0; step < kSteps; ++step) {
          const int64_t ranks = step < stop ? before : after, micro = kBatches / ranks;
          for (int64_t rank = 0; rank < ranks; ++rank)
            for (int64_t g = 0; g < micro; ++g) {
              const Batch batch = stream.batch(step * kBatches + rank * micro + g);
              samples.insert(samples.end(), batch.samples.begin(), batch.samples.end());
              for (int64_t row = 0; row < 2; ++row) {
                std::vector<int64_t> window(4);
                shards->read(stream.place(batch.samples[static_cast<size_t>(row)]).row * 4, window);
                ASSERT_EQ(numbers(batch.tokens_BT[row]), window);
              }
            }
        }
        ASSERT_EQ(samples, expected) << before << " ranks, then " << after << " from step " << stop;
      }
}

TEST(BatchStream, IsolatedDocumentsRestartPositionsAndPredictNothingAcross) {
  const TemporaryDirectory directory;
  const Documents documents = random_documents(5, 25, 9, 256);
  const auto shards = write_corpus(directory / "c", documents, 11);
  const std::vector<int64_t> all = concatenation(documents);
  std::vector<int64_t> document_of;
  for (size_t d = 0; d < documents.size(); ++d)
    document_of.insert(document_of.end(), documents[d].size(), static_cast<int64_t>(d));

  constexpr int64_t kT = 8;
  const BatchStream stream(shards, {.sequence = kT, .rows = 1, .shuffle = false, .isolate_documents = true});
  int64_t masked = 0;
  for (int64_t number = 0; number < stream.samples_per_epoch(); ++number) {
    const Batch batch = stream.batch(number);
    const auto labels = numbers(batch.labels_BT), positions = numbers(batch.positions_BT),
               document = numbers(batch.document_BT);
    for (int64_t t = 0; t < kT; ++t) {
      const auto at = static_cast<size_t>(number * kT + t), i = static_cast<size_t>(t);
      int64_t position = 0;
      while (position < t && document_of[at - static_cast<size_t>(position) - 1] == document_of[at])
        ++position;
      EXPECT_EQ(positions[i], position);
      EXPECT_EQ(document[i], document_of[at] - document_of[static_cast<size_t>(number * kT)]);
      const bool inside = at + 1 < all.size() && document_of[at + 1] == document_of[at];
      EXPECT_EQ(labels[i], inside ? all[at + 1] : kIgnored);
      masked += !inside;
    }
  }
  EXPECT_GT(masked, 10);
}

// Three corpora whose ids tell them apart; one is so short that it is read again and again.
TEST(BatchStream, AMixtureDrawsFromEachSourceByItsWeightEachAtItsOwnPace) {
  const TemporaryDirectory directory;
  const std::vector<int64_t> sizes = {400, 90, 33};
  const std::vector<double> weights = {5, 2, 1};
  std::vector<Source> sources;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const std::vector<int32_t> document(static_cast<size_t>(sizes[s]), static_cast<int32_t>(s) + 10);
    const std::string name = "c" + std::to_string(s);
    sources.push_back({name, write_corpus(directory / name, {document}), weights[s]});
  }
  constexpr int64_t kRows = 4, kBatches = 100, kT = 8;
  const BatchStream stream(sources, {.sequence = kT, .rows = kRows, .seed = 6});
  std::vector<int64_t> taken(sizes.size());
  std::vector<std::vector<int64_t>> starts(sizes.size());
  for (int64_t number = 0; number < kBatches; ++number) {
    EXPECT_EQ(stream.taken(number * kRows), taken);
    const Batch batch = stream.batch(number);
    for (int64_t row = 0; row < kRows; ++row) {
      const int64_t source = batch.source_B[row].item<int64_t>();
      const auto s = static_cast<size_t>(source);
      EXPECT_TRUE(at::all(batch.tokens_BT[row] == source + 10).item<bool>());
      EXPECT_EQ(stream.place(number * kRows + row).source, s);
      starts[s].push_back(batch.corpus_BT[row][0].item<int64_t>());
      ++taken[s];
    }
  }
  EXPECT_EQ(taken, (std::vector<int64_t>{250, 100, 50}));
  for (size_t s = 0; s < sizes.size(); ++s) {  // every epoch of a source visits all its windows
    const auto windows = static_cast<size_t>(stream.samples_per_epoch(s));
    ASSERT_EQ(windows, static_cast<size_t>(sizes[s] / kT));
    for (size_t at = 0; at + windows <= starts[s].size(); at += windows)
      EXPECT_EQ(std::set<int64_t>(starts[s].begin() + static_cast<ptrdiff_t>(at),
                                  starts[s].begin() + static_cast<ptrdiff_t>(at + windows))
                    .size(),
                windows);
  }
}

TEST(BatchStream, OneSourceIsAMixtureOfOne) {
  const TemporaryDirectory directory;
  const auto shards = corpus(directory, 103);
  const BatchStream alone(shards, {.sequence = 5, .rows = 3, .seed = 4}),
      mixed(std::vector<Source>{{"c", shards, 0.25}}, {.sequence = 5, .rows = 3, .seed = 4});
  for (const int64_t number : {0, 5, 40}) {
    EXPECT_TRUE(same_bits(alone.batch(number).tokens_BT, mixed.batch(number).tokens_BT));
    EXPECT_TRUE(same_bits(mixed.batch(number).source_B, at::zeros({3}, at::kLong)));
  }
}

// Spans of 1 to 9 tokens, learned or only read, across shards.
TEST(BatchStream, OnlyLearnedTokensAreLabels) {
  const TemporaryDirectory directory;
  const Documents spans = random_documents(8, 40, 9, 256);
  std::vector<bool> learned;
  TokenShardWriter writer(local_files(), directory / "c", *make_byte_tokenizer(), "test", 31, true);
  for (size_t i = 0; i < spans.size(); ++i) {
    writer.add(spans[i], spans[i].size(), i % 3 != 0, i % 2 == 1);
    learned.insert(learned.end(), spans[i].size(), i % 2 == 1);
  }
  writer.finish();
  const auto shards = std::make_shared<const TokenShards>(directory / "c");
  const std::vector<int64_t> all = concatenation(spans);
  const BatchStream stream(shards, {.sequence = 7, .rows = 1, .shuffle = false});
  for (int64_t number = 0; number < stream.samples_per_epoch(); ++number) {
    const auto labels = numbers(stream.batch(number).labels_BT);
    for (size_t t = 0; t < 7; ++t) {
      const size_t next = static_cast<size_t>(number) * 7 + t + 1;
      EXPECT_EQ(labels[t], next < all.size() && learned[next] ? all[next] : kIgnored) << next;
    }
  }
  EXPECT_EQ(shards->learned(), std::count(learned.begin(), learned.end(), true));
}

TEST(BatchStream, RefusesWhatCannotBe) {
  const TemporaryDirectory directory;
  const auto shards = corpus(directory, 10);
  EXPECT_NO_THROW(BatchStream(shards, {.sequence = 10}));
  EXPECT_THROW(BatchStream(shards, {.sequence = 11}), DataError);
  EXPECT_THROW(BatchStream(shards, {.sequence = 0}), ConfigError);
  EXPECT_THROW(BatchStream(shards, {.sequence = 5, .rows = 0}), ConfigError);
  EXPECT_THROW(BatchStream(shards, {.sequence = 5, .limit = 4}), ConfigError);
  EXPECT_THROW(BatchStream(shards, {.sequence = 5}).batch(-1), ShapeError);
  const auto other =
      write_corpus(directory / "other", random_documents(1, 9, 80, 256), 1 << 20, OtherBytes());
  try {
    BatchStream({{"mine", shards}, {"theirs", other}}, {.sequence = 5});
    FAIL() << "ids of two tokenizers were mixed";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("theirs"), ::testing::HasSubstr("mine")));
  }
}

}  // namespace retort::data
