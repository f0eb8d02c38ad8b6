#include "eval/comparison.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace retort::eval {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TaskResult result(const std::string& metric, std::vector<Score> scores) {
  TaskResult out;
  out.spec.task = "task";
  out.prompts.resize(scores.size());
  const Aggregation& aggregation = aggregations().at(metrics().at(metric).aggregation);
  out.metrics.push_back({.metric = metric, .scores = scores, .value = aggregation.of(scores)});
  return out;
}

std::vector<Score> flags(const std::string& text) {
  std::vector<Score> out;
  for (const char c : text) out.push_back({c == '1' ? 1.0 : 0.0});
  return out;
}

}  // namespace

// Values by hand: 2 sum of C(N, k) / 2^N.
TEST(Comparison, McNemarsExactAndMidP) {
  EXPECT_NEAR(mcnemar(12, 5).exact, 0.1435, 5e-5);
  EXPECT_NEAR(mcnemar(12, 5).mid, 0.0963, 5e-5);
  EXPECT_NEAR(mcnemar(14, 30).exact, 0.0226, 5e-5);
  EXPECT_NEAR(mcnemar(14, 30).mid, 0.0161, 5e-5);
  EXPECT_NEAR(mcnemar(0, 6).exact, 0.03125, 1e-12);
  EXPECT_EQ(mcnemar(0, 0).exact, 1.0);
  EXPECT_NEAR(mcnemar(4, 4).mid, 1.0, 1e-12);
}

TEST(Comparison, HolmsCorrection) {
  EXPECT_THAT(holm(std::vector<double>{0.01, 0.04, 0.03}),
              ElementsAre(DoubleNear(0.03, 1e-12), DoubleNear(0.06, 1e-12), DoubleNear(0.06, 1e-12)));
  EXPECT_THAT(holm(std::vector<double>{0.9, 0.8}), ElementsAre(1.0, 1.0));
}

TEST(Comparison, ScoresOfZeroAndOneAreComparedDocumentByDocument) {
  const auto all = compare({result("acc", flags("110010"))}, {result("acc", flags("011011"))});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].only_first, 1);
  EXPECT_EQ(all[0].only_second, 2);
  EXPECT_EQ(all[0].p, mcnemar(1, 2).mid);
  EXPECT_EQ(all[0].test, "McNemar");
  // d = -1, 0, 1, 0, 0, 1
  const double mean = 1.0 / 6, error = std::sqrt((3 - 6 * mean * mean) / 5 / 6);
  EXPECT_NEAR(all[0].high - all[0].low, 2 * 1.959963984540054 * error, 1e-12);
  EXPECT_NEAR((all[0].high + all[0].low) / 2, mean, 1e-12);
}

// Perplexities of one text after another: a model that is a little better everywhere is better beyond doubt, though
// the texts differ far more than the models.
TEST(Comparison, FiguresThatAreNoMeansByPairedBootstrap) {
  std::vector<Score> first, second, same;
  for (int i = 0; i < 60; ++i) {
    const double nats = -5.0 - 3.0 * ((i * 37) % 11), bytes = 10 + i % 3;
    first.push_back({nats, bytes});
    second.push_back({nats + 0.1 + 0.01 * (i % 5), bytes});
    same.push_back({nats + (i % 2 == 0 ? 0.1 : -0.1), bytes});
  }
  const Difference better = compare({result("bits_per_byte", first)}, {result("bits_per_byte", second)})[0];
  EXPECT_LT(better.high, 0.0);
  EXPECT_NEAR(better.p, 1.0 / 10001, 1e-12);
  EXPECT_EQ(better.test, "bootstrap");
  EXPECT_LT(better.low, better.second - better.first);
  EXPECT_GT(better.high, better.second - better.first);
  EXPECT_GT(compare({result("bits_per_byte", first)}, {result("bits_per_byte", same)})[0].p, 0.5);
  EXPECT_EQ(compare({result("bits_per_byte", first)}, {result("bits_per_byte", first)})[0].p, 1.0);
}

TEST(Comparison, RefusesOtherDocuments) {
  EXPECT_THROW(compare({result("acc", flags("11"))}, {result("acc", flags("111"))}), DataError);
}

}  // namespace retort::eval
