#include "eval/generate.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "tests/eval/models.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;
using retort::testing::relative_error;
using ::testing::Each;
using ::testing::ElementsAre;

const std::vector<int32_t> kPrompt = {7, 3, 30, 3, 12};

at::Tensor row(std::vector<int32_t> ids) { return at::tensor(ids, at::kLong).unsqueeze(0); }

// Shares of `draws` samples from fixed logits, and their expectation checked within 5 standard deviations: a
// right sampler fails one seed in two million a token.
void expect_shares(const at::Tensor& logits_V, const SamplingOptions& options, const std::vector<double>& p) {
  constexpr int kDraws = 40000;
  const Random random(3, "test/sampling");
  std::vector<int> counts(p.size());
  for (int i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(sample_token(logits_V, options, random, static_cast<uint64_t>(i)))];
  for (size_t id = 0; id < p.size(); ++id)
    EXPECT_NEAR(counts[id] / double{kDraws}, p[id], 5 * std::sqrt(p[id] * (1 - p[id]) / kDraws)) << id;
}

}  // namespace

TEST(Generate, GreedyFollowsTheLogitsOfTheWholeText) {
  const auto model = make_decoder(40, 64);
  std::vector<int32_t> text = kPrompt;
  for (const int32_t id : generate(*model, kPrompt, {.tokens = 40})) {
    const at::Tensor last_V = logits(*model, row(text))[0][-1];
    // The cache may round a near tie the other way; a wrong token is off by far more.
    EXPECT_GE(last_V[id].item<double>(), last_V.max().item<double>() - 1e-4) << text.size();
    text.push_back(id);
  }
  EXPECT_EQ(text.size(), kPrompt.size() + 40);
  EXPECT_GT(std::set<int32_t>(text.begin(), text.end()).size(), 3u) << "the model is too dull to test with";
}

TEST(Generate, GreedyTakesTheFirstOfEqualMaxima) {
  const Random random(1, "test/sampling");
  EXPECT_EQ(sample_token(at::tensor({1.0f, 4.0f, 2.0f, 4.0f}), {}, random, 0), 1);
  EXPECT_EQ(sample_token(at::zeros({9}), {}, random, 0), 0);
}

TEST(Generate, ATinyNucleusIsGreedy) {
  const auto model = make_decoder(40, 64);
  const auto greedy = generate(*model, kPrompt, {.tokens = 30});
  EXPECT_EQ(generate(*model, kPrompt, {.tokens = 30, .temperature = 1.5, .top_p = 1e-9, .seed = 5}), greedy);
  EXPECT_EQ(generate(*model, kPrompt, {.tokens = 30, .temperature = 1e-6, .seed = 5}), greedy);
}

TEST(Generate, ASeedNamesTheText) {
  const auto model = make_decoder(40, 64);
  const SamplingOptions options = {.tokens = 30, .temperature = 1.0, .top_p = 0.9, .seed = 5};
  SamplingOptions other = options;
  other.seed = 6;
  EXPECT_EQ(generate(*model, kPrompt, options), generate(*model, kPrompt, options));
  EXPECT_NE(generate(*model, kPrompt, options), generate(*model, kPrompt, other));
}

TEST(Generate, DrawsFollowTheDistribution) {
  const std::vector<double> p = {0.4, 0.05, 0.3, 0.25};
  const at::Tensor logits_V = at::tensor(p, at::kDouble).log().to(at::kFloat);
  expect_shares(logits_V, {.temperature = 1.0}, p);
  expect_shares(logits_V + 80.0, {.temperature = 1.0}, p);

  std::vector<double> cold(4);
  double total = 0;
  for (size_t i = 0; i < 4; ++i) total += cold[i] = p[i] * p[i];  // temperature 1/2 squares
  for (double& x : cold) x /= total;
  expect_shares(logits_V, {.temperature = 0.5}, cold);
  // 0.4 + 0.3 holds 0.69 of the probability; 0.71 needs one more.
  expect_shares(logits_V, {.temperature = 1.0, .top_p = 0.69}, {4.0 / 7, 0, 3.0 / 7, 0});
  expect_shares(logits_V, {.temperature = 1.0, .top_p = 0.71}, {0.4 / 0.95, 0, 0.3 / 0.95, 0.25 / 0.95});
}

TEST(Generate, StopsWhenTheContextIsFull) {
  const auto model = make_decoder(40, 16);
  EXPECT_EQ(generate(*model, kPrompt, {.tokens = 1000}).size(), 11u);
  EXPECT_EQ(generate(*model, std::vector<int32_t>(16, 1), {.tokens = 10}).size(), 0u);
  EXPECT_THROW(generate(*model, std::vector<int32_t>(17, 1), {}), DataError);
}

TEST(Generate, StreamsTokensUntilToldToStop) {
  const auto model = make_decoder(40, 64);
  std::vector<int32_t> seen;
  const auto out = generate(*model, kPrompt, {.tokens = 20}, [&](int32_t id) {
    seen.push_back(id);
    return seen.size() < 6;
  });
  EXPECT_EQ(out.size(), 6u);
  EXPECT_EQ(seen, out);
}

TEST(Generate, RefusesBadPromptsAndOptions) {
  const auto model = make_decoder(40, 16);
  EXPECT_THROW(generate(*model, {}, {}), DataError);
  EXPECT_THROW(generate(*model, {40}, {}), DataError);
  EXPECT_THROW(generate(*model, {-1}, {}), DataError);
  EXPECT_THROW(generate(*model, {1}, {.temperature = -1.0}), ConfigError);
  EXPECT_THROW(generate(*model, {1}, {.top_p = 1.1}), ConfigError);
  EXPECT_THROW(generate(*model, {1}, {.tokens = -1}), ConfigError);
  const at::Tensor broken_V = at::full({4}, std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(sample_token(broken_V, {}, Random(1, "test"), 0), NonFiniteError);
}

TEST(Generate, LogitsAreTheHeadOverTheHiddenStates) {
  const auto model = make_decoder(40, 16);
  const at::Tensor tokens_BT = at::stack({row(kPrompt)[0], row({1, 2, 3, 4, 5})[0]});
  const at::Tensor logits_BTV = logits(*model, tokens_BT);
  ASSERT_EQ(logits_BTV.sizes(), (std::vector<int64_t>{2, 5, 40}));
  EXPECT_EQ(logits_BTV.scalar_type(), at::kFloat);
  EXPECT_FALSE(logits_BTV.requires_grad());
  const at::NoGradGuard no_grad;
  const at::Tensor h_BTD = model->hidden({.tokens_BT = tokens_BT}).to(at::kDouble);
  const at::Tensor expected = at::matmul(h_BTD, model->head().weight_VD.to(at::kDouble).t());
  // Width 32 in f32: each product errs by at most 32 eps of its terms' magnitudes, here a few times the
  // largest.
  EXPECT_LT(relative_error(logits_BTV, expected), 32 * 4 * std::ldexp(1.0, -24));
  // Tokens to come change nothing.
  EXPECT_LT(relative_error(logits(*model, tokens_BT.narrow(1, 0, 3)), expected.narrow(1, 0, 3)), 1e-5);
}

}  // namespace retort::eval
