#include "eval/generate.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "tests/eval/models.h"
#include "tests/testing.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;
using retort::testing::relative_error;

using Ids = std::vector<int32_t>;
const Ids kPrompt = {7, 3, 30, 3, 12};
const std::vector<Ids> kPrompts = {kPrompt, {1}, {9, 8, 7, 6, 5, 4, 3, 2, 1}, {30, 3}};

at::Tensor row(const Ids& ids) { return at::tensor(ids, at::kLong).unsqueeze(0); }

Ids continued(models::Model& model, const Ids& prompt, const SamplingOptions& options) {
  return generate(model, {prompt}, options).front().ids;
}

// How far below the likeliest token the worst of `ids` stood, as the logits of the whole text so far say.
double worst_choice(models::Model& model, Ids text, const Ids& ids) {
  double worst = 0;
  for (const int32_t id : ids) {
    const at::Tensor last_V = logits(model, row(text))[0][-1];
    worst = std::max(worst, last_V.max().item<double>() - last_V[id].item<double>());
    text.push_back(id);
  }
  return worst;
}

}  // namespace

TEST(Generate, GreedyFollowsTheLogitsOfTheWholeText) {
  const auto model = make_decoder(40, 64);
  const Ids ids = continued(*model, kPrompt, {.tokens = 40});
  ASSERT_EQ(ids.size(), 40u);
  // The cache may round a near tie the other way; a wrong token is off by far more.
  EXPECT_LT(worst_choice(*model, kPrompt, ids), 1e-4);
  EXPECT_GT(std::set<int32_t>(ids.begin(), ids.end()).size(), 3u) << "the model is too dull to test with";
}

// Batched products may round a near tie the other way, and everything after it is then another text. So each
// token is held against the logits that its prompt has alone: in bf16 logits of 4 lie 2^-6 apart, and some
// roundings add up; another prompt's tokens are off by more than 6.
TEST(Generate, ABatchGivesEachPromptWhatItGetsAlone) {
  for (const auto& [dtype, slack] : {std::pair{at::kFloat, 1e-4}, {at::kBFloat16, 0.25}}) {
    const auto model = make_decoder(40, 64);
    models::IdentityMap identity;
    models::bind_working(model->parameters(), identity, dtype);
    const auto together = generate(*model, kPrompts, {.tokens = 50});
    ASSERT_EQ(together.size(), kPrompts.size());
    for (size_t i = 0; i < kPrompts.size(); ++i) {
      EXPECT_EQ(together[i].ids.size(), 50u);
      EXPECT_LT(worst_choice(*model, kPrompts[i], together[i].ids), slack)
          << i << " " << c10::toString(dtype);
      const Ids& others = together[(i + 1) % kPrompts.size()].ids;
      EXPECT_GT(worst_choice(*model, kPrompts[i], others), 4.0) << i << " " << c10::toString(dtype);
    }
  }
}

// Byte-patch models know no padding.
TEST(Generate, PatchModelsTooGiveEachPromptWhatItGetsAlone) {
  const auto model = testing::make_patch_model(24);
  const auto together = generate(*model, kPrompts, {.tokens = 20});  // some to the end of the context
  for (size_t i = 0; i < kPrompts.size(); ++i)
    EXPECT_EQ(together[i].ids, continued(*model, kPrompts[i], {.tokens = 20})) << i;
  const auto equal = generate(*model, {kPrompt, {1, 2, 3, 4, 5}}, {.tokens = 10});
  EXPECT_EQ(equal[0].ids, continued(*model, kPrompt, {.tokens = 10}));
}

// Rows end at different times, and each draws from a stream of its own.
TEST(Generate, RowsThatEndLeaveTheOthersAlone) {
  const auto model = make_decoder(40, 64);
  const SamplingOptions options = {.tokens = 30, .temperature = 1.0, .seed = 4};
  const auto whole = generate(*model, kPrompts, options);
  std::vector<int> seen(kPrompts.size());
  GenerateHooks hooks;
  hooks.on_token = [&](size_t i, int32_t) { return ++seen[i] < static_cast<int>(30 - 7 * i); };
  const auto ended = generate(*model, kPrompts, options, hooks);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    EXPECT_EQ(ended[i].ids, Ids(whole[i].ids.begin(), whole[i].ids.begin() + 30 - 7 * static_cast<int>(i)));
    EXPECT_EQ(ended[i].finish, Finish::kStop);
  }
  EXPECT_EQ(whole[0].ids, continued(*model, kPrompts[0], options));  // row 0 has the stream of one prompt
  const auto equals = generate(*model, {kPrompt, kPrompt}, options);
  EXPECT_NE(equals[0].ids, equals[1].ids);
}

TEST(Generate, AnEndTokenEndsItsRow) {
  const auto model = make_decoder(40, 64);
  const Ids whole = continued(*model, kPrompt, {.tokens = 30});
  GenerateHooks hooks;
  std::vector<Ids> streamed(1);
  hooks.ends = {whole[9]};
  hooks.on_token = [&](size_t i, int32_t id) {
    streamed[i].push_back(id);
    return true;
  };
  const auto first = static_cast<size_t>(std::find(whole.begin(), whole.end(), whole[9]) - whole.begin());
  const auto out = generate(*model, {kPrompt}, {.tokens = 30}, hooks).front();
  EXPECT_EQ(out.ids, Ids(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(first) + 1));
  EXPECT_EQ(out.finish, Finish::kEnd);
  EXPECT_EQ(streamed[0].size(), first);  // the end token is no text
}

TEST(Generate, ATinyNucleusIsGreedy) {
  const auto model = make_decoder(40, 64);
  const auto greedy = continued(*model, kPrompt, {.tokens = 30});
  EXPECT_EQ(continued(*model, kPrompt, {.tokens = 30, .temperature = 1.5, .top_p = 1e-9, .seed = 5}), greedy);
  EXPECT_EQ(continued(*model, kPrompt, {.tokens = 30, .temperature = 1e-6, .seed = 5}), greedy);
}

TEST(Generate, ASeedNamesTheText) {
  const auto model = make_decoder(40, 64);
  const SamplingOptions options = {.tokens = 30, .temperature = 1.0, .top_p = 0.9, .seed = 5};
  SamplingOptions other = options;
  other.seed = 6;
  EXPECT_EQ(continued(*model, kPrompt, options), continued(*model, kPrompt, options));
  EXPECT_NE(continued(*model, kPrompt, options), continued(*model, kPrompt, other));
}

TEST(Generate, TheWholeTextIsPenalised) {
  const auto model = make_decoder(40, 64);
  const Ids ids = continued(*model, kPrompt, {.tokens = 30, .repetition_penalty = 1e6});
  std::set<int32_t> all(kPrompt.begin(), kPrompt.end());
  for (const int32_t id : ids) EXPECT_TRUE(all.insert(id).second) << id << " came again";
}

TEST(Generate, StopsWhenTheContextIsFull) {
  const auto model = make_decoder(40, 16);
  const auto out = generate(*model, {kPrompt, Ids(16, 1), Ids(10, 2)}, {.tokens = 8});
  EXPECT_EQ(out[0].ids, continued(*model, kPrompt, {.tokens = 8}));
  EXPECT_EQ(out[0].finish, Finish::kLength);
  EXPECT_TRUE(out[1].ids.empty());
  EXPECT_EQ(out[1].finish, Finish::kContext);
  EXPECT_EQ(out[2].ids, continued(*model, Ids(10, 2), {.tokens = 1000}));
  EXPECT_EQ(out[2].ids.size(), 6u);
  EXPECT_EQ(out[2].finish, Finish::kContext);
  EXPECT_THROW(generate(*model, {Ids(17, 1)}, {}), DataError);
}

TEST(Generate, RefusesBadPromptsAndOptions) {
  const auto model = make_decoder(40, 16);
  EXPECT_THROW(generate(*model, {Ids{}}, {}), DataError);
  EXPECT_THROW(generate(*model, {{40}}, {}), DataError);
  EXPECT_THROW(generate(*model, {{1}, {-1}}, {}), DataError);
  EXPECT_THROW(generate(*model, {{1}}, {.temperature = -1.0}), ConfigError);
  EXPECT_TRUE(generate(*model, {}, {}).empty());
}

// However likely the padding of its vocabulary would be.
TEST(Generate, PaddingIsNeverDrawn) {
  const auto model = make_decoder(40, 64);
  const Ids drawn = continued(*model, kPrompt, {.tokens = 40, .temperature = 50.0});
  EXPECT_GE(*std::max_element(drawn.begin(), drawn.end()), 31) << "the model is too dull to test with";
  model->set_tokens(31);
  EXPECT_EQ(logits(*model, row(kPrompt)).size(2), 31);
  for (const double temperature : {0.0, 1.0, 50.0})
    for (const int32_t id : continued(*model, kPrompt, {.tokens = 40, .temperature = temperature}))
      EXPECT_LT(id, 31);
  EXPECT_THROW(continued(*model, {31}, {}), DataError);
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
