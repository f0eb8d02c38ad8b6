#include "train/run_state.h"

#include <gmock/gmock.h>

#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::train {
namespace {

RunState fresh() { return {.guard = {{}, 3}}; }

}  // namespace

TEST(BestFigure, CountsAStepOnceAndStartsAgainAtALowerOne) {
  BestFigure best;
  EXPECT_FALSE(best.known());
  best.take(3, 10);
  best.take(4, 20);
  best.take(1, 20);  // the same validation again, by a run that went on elsewhere
  EXPECT_EQ(best.step, 10);
  EXPECT_EQ(best.since, 1);
  best.take(3, 30);  // not lower
  EXPECT_EQ(best.since, 2);
  best.take(2, 40);
  EXPECT_EQ(best.figure, 2);
  EXPECT_EQ(best.step, 40);
  EXPECT_EQ(best.since, 0);
}

TEST(RunState, ComesBackFromWhatItWrites) {
  for (const bool keeps_best : {false, true}) {
    RunState state = fresh();
    state.tokens = 4096, state.loss = 1.5, state.unlabelled = 2;
    state.best.take(1.25, 7);
    formats::Json train = formats::Json::object();
    state.write(train, keeps_best);
    EXPECT_EQ(train.contains("best"), keeps_best);
    RunState back = fresh();
    back.read(train, "here");
    EXPECT_EQ(back.tokens, 4096);
    EXPECT_EQ(back.loss, 1.5);
    EXPECT_EQ(back.unlabelled, 2);
    EXPECT_EQ(back.best.figure, 1.25);
    EXPECT_EQ(back.best.step, 7);
    EXPECT_EQ(back.best.counted, 7);
    train.erase("tokens");
    EXPECT_ANY_THROW(back.read(train, "here"));
  }
}

TEST(DataPosition, CountsWhatAStepReadsOfEachSource) {
  const testing::TemporaryDirectory directory;
  const auto shards = testing::write_corpus(directory / "shards", testing::random_documents(4, 40, 60, 23));
  const data::BatchStream stream({{"corpus", shards}}, {.sequence = 16, .rows = 2, .seed = 3});
  const DataPosition position(stream, 3);
  EXPECT_EQ(position.batch()["rows"], 6);
  EXPECT_EQ(position.sources(5)[0]["samples"], 30);
  const int64_t all = stream.samples_per_epoch(0);
  EXPECT_DOUBLE_EQ(position.epochs(all)["corpus"], 6.0);
  EXPECT_NE(position.batch(), DataPosition(stream, 4).batch());
}

}  // namespace retort::train
