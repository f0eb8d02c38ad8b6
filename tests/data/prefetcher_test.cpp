#include "data/prefetcher.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using retort::testing::random_documents;
using retort::testing::same_bits;
using retort::testing::TemporaryDirectory;
using retort::testing::write_corpus;

}  // namespace

TEST(Prefetcher, GivesTheBatchesOfTheStreamInOrder) {
  const TemporaryDirectory directory;
  const BatchStream stream(write_corpus(directory / "c", random_documents(1, 9, 80, 256)),
                           {.sequence = 8, .rows = 3, .seed = 3, .isolate_documents = true});
  for (const int64_t ahead : {1, 4}) {
    Prefetcher prefetcher(
        stream, [](int64_t k) { return 3 * k + 1; }, 5, ahead);
    for (int64_t k = 5; k < 40; ++k) {
      const Batch got = prefetcher.next(), direct = stream.batch(3 * k + 1);
      EXPECT_EQ(got.samples, direct.samples);
      EXPECT_TRUE(same_bits(got.tokens_BT, direct.tokens_BT));
      EXPECT_TRUE(same_bits(got.labels_BT, direct.labels_BT));
      EXPECT_TRUE(same_bits(got.positions_BT, direct.positions_BT));
      EXPECT_TRUE(same_bits(got.document_BT, direct.document_BT));
    }
  }
}

TEST(Prefetcher, HandsOutWhatWasMadeThenTheException) {
  const TemporaryDirectory directory;
  const BatchStream stream(write_corpus(directory / "c", random_documents(2, 9, 80, 256)), {.sequence = 8});
  Prefetcher prefetcher(
      stream, [](int64_t k) { return k < 3 ? k : -1; }, 0, 2);  // batch -1 is an error
  for (int64_t k = 0; k < 3; ++k) EXPECT_EQ(prefetcher.next().samples, stream.batch(k).samples);
  EXPECT_THROW(prefetcher.next(), ShapeError);
  EXPECT_THROW(prefetcher.next(), ShapeError);
}

TEST(Prefetcher, EndsWithItsThreadAtAnyPoint) {
  const TemporaryDirectory directory;
  const BatchStream stream(write_corpus(directory / "c", random_documents(3, 9, 80, 256)), {.sequence = 8});
  for (int taken = 0; taken < 20; ++taken) {
    Prefetcher prefetcher(
        stream, [](int64_t k) { return k; }, 0, 3);
    for (int i = 0; i < taken % 5; ++i) prefetcher.next();
  }
  EXPECT_THROW(Prefetcher(
                   stream, [](int64_t k) { return k; }, 0, 0),
               ConfigError);
}

}  // namespace retort::data
