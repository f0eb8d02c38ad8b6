#include "eval/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace retort::eval {
namespace {

// Shares of `draws` samples from fixed logits, and their expectation checked within 5 standard deviations: a
// right sampler fails one seed in two million a token.
void expect_shares(const at::Tensor& logits_V, const SamplingOptions& options, std::vector<double> p,
                   const std::vector<int32_t>& seen = {}) {
  constexpr int kDraws = 40000;
  const Random random(3, "test/sampling");
  double total = 0;
  for (const double share : p) total += share;
  std::vector<int> counts(p.size());
  for (int i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(sample_token(logits_V, options, seen, random, static_cast<uint64_t>(i)))];
  for (size_t id = 0; id < p.size(); ++id) {
    const double share = p[id] / total;
    EXPECT_NEAR(counts[id] / double{kDraws}, share, 5 * std::sqrt(share * (1 - share) / kDraws)) << id;
  }
}

int32_t greedy(const at::Tensor& logits_V, const SamplingOptions& options = {},
               const std::vector<int32_t>& seen = {}) {
  return sample_token(logits_V, options, seen, Random(1, "test/sampling"), 0);
}

const std::vector<double> kShares = {0.4, 0.05, 0.3, 0.25};
const at::Tensor kLogits_V = at::tensor(kShares, at::kDouble).log().to(at::kFloat);

}  // namespace

TEST(Sampling, GreedyTakesTheFirstOfEqualMaxima) {
  EXPECT_EQ(greedy(at::tensor({1.0f, 4.0f, 2.0f, 4.0f})), 1);
  EXPECT_EQ(greedy(at::zeros({9})), 0);
}

TEST(Sampling, DrawsFollowTheDistribution) {
  expect_shares(kLogits_V, {.temperature = 1.0}, kShares);
  expect_shares(kLogits_V + 80.0, {.temperature = 1.0}, kShares);
  std::vector<double> cold;
  for (const double share : kShares) cold.push_back(share * share);  // temperature 1/2 squares
  expect_shares(kLogits_V, {.temperature = 0.5}, cold);
}

TEST(Sampling, TopKKeepsTheLikeliest) {
  expect_shares(kLogits_V, {.temperature = 1.0, .top_k = 1}, {1, 0, 0, 0});
  expect_shares(kLogits_V, {.temperature = 1.0, .top_k = 3}, {0.4, 0, 0.3, 0.25});
  expect_shares(kLogits_V, {.temperature = 1.0, .top_k = 9}, kShares);
  // Of equals the first.
  expect_shares(at::zeros({5}), {.temperature = 1.0, .top_k = 2}, {0.5, 0.5, 0, 0, 0});
}

TEST(Sampling, TopPKeepsTheFewestThatHoldTheShare) {
  // 0.4 + 0.3 holds 0.69 of the probability; 0.71 needs one more.
  expect_shares(kLogits_V, {.temperature = 1.0, .top_p = 0.69}, {0.4, 0, 0.3, 0});
  expect_shares(kLogits_V, {.temperature = 1.0, .top_p = 0.71}, {0.4, 0, 0.3, 0.25});
  expect_shares(kLogits_V, {.temperature = 1.0, .top_p = 0.0}, {1, 0, 0, 0});
  // Of what top-k left: 0.4 is 0.57 of 0.7.
  expect_shares(kLogits_V, {.temperature = 1.0, .top_k = 2, .top_p = 0.56}, {1, 0, 0, 0});
  expect_shares(kLogits_V, {.temperature = 1.0, .top_k = 2, .top_p = 0.58}, {0.4, 0, 0.3, 0});
}

TEST(Sampling, MinPKeepsWhatIsNotFarBehindTheLikeliest) {
  expect_shares(kLogits_V, {.temperature = 1.0, .min_p = 0.7}, {0.4, 0, 0.3, 0});
  expect_shares(kLogits_V, {.temperature = 1.0, .min_p = 0.6}, {0.4, 0, 0.3, 0.25});
  expect_shares(kLogits_V, {.temperature = 1.0, .min_p = 1.0}, {1, 0, 0, 0});
  // At temperature 1/2 the ratio 0.3 / 0.4 is squared.
  expect_shares(kLogits_V, {.temperature = 0.5, .min_p = 0.6}, {1, 0, 0, 0});
}

TEST(Sampling, WhatWasSeenIsPenalisedOnce) {
  const at::Tensor logits_V = at::tensor({2.0f, 1.5f, -1.0f});
  EXPECT_EQ(greedy(logits_V, {.repetition_penalty = 1.2}, {0}), 0);
  EXPECT_EQ(greedy(logits_V, {.repetition_penalty = 1.5}, {0}), 1);
  EXPECT_EQ(greedy(logits_V, {.repetition_penalty = 1.2}, {0, 0, 0}), 0);
  // -1 becomes -2, and 2 becomes 1.
  expect_shares(logits_V, {.temperature = 1.0, .repetition_penalty = 2.0},
                {std::exp(1.0), std::exp(1.5), std::exp(-2.0)}, {2, 0, 2});
}

TEST(Sampling, RefusesOptionsAndLogitsThatAreNone) {
  for (const SamplingOptions& bad : {SamplingOptions{.tokens = -1},
                                     {.temperature = -1.0},
                                     {.top_k = -1},
                                     {.top_p = 1.1},
                                     {.min_p = -0.1},
                                     {.repetition_penalty = 0.0},
                                     {.stop = {""}},
                                     {.temperature = std::numeric_limits<double>::infinity()}})
    EXPECT_THROW(bad.validate(), ConfigError);
  EXPECT_NO_THROW(SamplingOptions().validate());
  EXPECT_THROW(greedy(at::full({4}, std::numeric_limits<float>::quiet_NaN())), NonFiniteError);
}

}  // namespace retort::eval
