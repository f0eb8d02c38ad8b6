// Totals that the golden tasks do not show; tests/recipes/described_tasks_test.cpp compares the rest with the harness.
#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace retort::eval {
namespace {

Score of(const char* metric, const Answered& document) { return metrics().at(metric).of(document); }

}  // namespace

TEST(Metrics, AccuracyByCharactersAndByBytesDiffer) {
  // 2 characters of 4 bytes, and 3 of 3: -2 / 2 < -2.5 / 3, and -2 / 4 > -2.5 / 3.
  const Answered document = {
      .answers = {{-2, false}, {-2.5, true}}, .choices = {"\u00e9\u00e9", "abc"}, .gold = 1};
  EXPECT_EQ(of("acc", document).value, 0);
  EXPECT_EQ(of("acc_norm", document).value, 1);
  EXPECT_EQ(of("acc_bytes", document).value, 0);
  EXPECT_EQ(of("exact_match", document).value, 1);
}

TEST(Metrics, OfEqualChoicesTheFirstWins) {
  const Answered document = {.answers = {{-2, false}, {-2, false}}, .choices = {"ab", "cd"}, .gold = 0};
  EXPECT_EQ(of("acc", document).value, 1);
  EXPECT_DOUBLE_EQ(of("brier_score", document).value, 0.5);
}

TEST(Metrics, OfOneContinuationAccuracyIsGreedyEquality) {
  const Answered right = {.answers = {{-2, true}}, .choices = {}},
                 wrong = {.answers = {{-1, false}}, .choices = {}};
  EXPECT_EQ(of("acc", right).value, 1);
  EXPECT_EQ(of("acc", wrong).value, 0);
  const std::vector<Score> both = {of("perplexity", right), of("perplexity", wrong)};
  EXPECT_DOUBLE_EQ(aggregations().at("perplexity").of(both), std::exp(1.5));
}

TEST(Metrics, WeightedOnesAreRatiosOfSums) {
  const std::vector<Score> scores = {{-6, 2}, {-2, 6}};
  EXPECT_DOUBLE_EQ(aggregations().at("weighted_perplexity").of(scores), std::exp(1.0));
  EXPECT_DOUBLE_EQ(aggregations().at("bits_per_byte").of(scores), 1.0 / std::log(2.0));
}

// Of two classes: (TP TN - FP FN) / sqrt(...), here with 3, 2, 1 and 2.
TEST(Metrics, MatthewsCorrelation) {
  std::vector<Score> scores(3, Score{1, 1});
  scores.insert(scores.end(), {{0, 0}, {0, 0}, {0, 1}, {1, 0}, {1, 0}});
  EXPECT_NEAR(aggregations().at("matthews_corrcoef").of(scores), 4 / std::sqrt(4.0 * 5 * 3 * 4), 1e-12);
  EXPECT_EQ(aggregations().at("matthews_corrcoef").of(std::vector<Score>(3, Score{1, 0})), 0.0);
}

TEST(Metrics, StandardErrors) {
  const Aggregation& mean = aggregations().at("mean");
  const std::vector<Score> scores = {{1}, {0}, {0}, {1}};
  EXPECT_NEAR(standard_error(mean, scores, 100), std::sqrt(1.0 / 3 / 4), 1e-12);
  EXPECT_TRUE(std::isnan(standard_error(mean, scores, 0)));
  EXPECT_TRUE(std::isnan(standard_error(mean, std::vector<Score>{{1}}, 100)));
  EXPECT_TRUE(std::isnan(standard_error(aggregations().at("brier_score"), scores, 100)));
}

TEST(Metrics, RowsNameAnAggregationThatExists) {
  for (const Metric& metric : metrics())
    EXPECT_NE(aggregations().find(metric.aggregation), nullptr) << metric.name;
}

}  // namespace retort::eval
