#include "distill/on_policy.h"

#include <gmock/gmock.h>

#include "distill/objective.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using ::testing::ElementsAre;

// Two packed rows of 8 tokens: documents of 5 and 3 tokens, and one of 4 with padding. Of each the first two tokens are
// the prompt.
data::Batch packed() {
  data::Batch b;
  b.tokens_BT = at::tensor({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0}, at::kLong).view({2, 8});
  const int64_t no = data::kIgnored;
  b.labels_BT = at::tensor({no, int64_t{3}, int64_t{4}, int64_t{5}, no, no, int64_t{8}, no, no, int64_t{11},
                            int64_t{12}, no, no, no, no, no})
                    .view({2, 8});
  b.document_BT = at::tensor({0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1}, at::kLong).view({2, 8});
  b.positions_BT = at::tensor({0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3}, at::kLong).view({2, 8});
  b.corpus_BT = at::arange(100, 116).view({2, 8});
  b.source_B = at::tensor({0, 1}, at::kLong);
  b.samples = {40, 41};
  return b;
}

std::vector<int64_t> values(const at::Tensor& x) {
  const at::Tensor flat = x.flatten().contiguous();
  return {flat.const_data_ptr<int64_t>(), flat.const_data_ptr<int64_t>() + flat.numel()};
}

std::unique_ptr<train::Objective> objective(const OnPolicyOptions& options, std::vector<int32_t> ends = {}) {
  const auto student = tiny_model(1);
  return make_on_policy(
      make_distillation(make_live_teacher(tiny_model(2)), {{.fn = "reverse_kl"}}, *student, 3), options,
      {.ends = std::move(ends), .seed = 3});
}

}  // namespace

TEST(OnPolicy, EveryDocumentWithALabelIsARowOfPromptAndAnswer) {
  const auto student = tiny_model(1);
  const data::Batch b = sample_answers(*student, packed(), 5, {.tokens = 4}, {.seed = 3});
  EXPECT_EQ(b.tokens_BT.sizes(), at::IntArrayRef({3, 6}));
  const std::vector<int64_t> first = values(b.tokens_BT.narrow(1, 0, 2));
  EXPECT_THAT(first, ElementsAre(1, 2, 6, 7, 9, 10));
  for (int64_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(at::equal(b.labels_BT[row].narrow(0, 1, 4), b.tokens_BT[row].narrow(0, 2, 4)));
    EXPECT_EQ(b.labels_BT[row][0].item<int64_t>(), data::kIgnored);  // of the prompt
    EXPECT_EQ(b.labels_BT[row][5].item<int64_t>(), data::kIgnored);  // nothing follows the last
  }
  EXPECT_THAT(b.samples, ElementsAre(40, 40, 41));
  EXPECT_THAT(values(b.source_B), ElementsAre(0, 0, 1));
  EXPECT_THAT(values(b.corpus_BT.select(1, 1)), ElementsAre(101, 106, 109));
}

TEST(OnPolicy, AnAnswerEndsWithItsFirstEndTokenWhichIsLearned) {
  const auto student = tiny_model(1);
  const OnPolicyOptions options{.tokens = 12};
  const data::Batch free = sample_answers(*student, packed(), 5, options, {.seed = 3});
  const auto end =
      static_cast<int32_t>(free.tokens_BT[0][4].item<int64_t>());  // the third token of an answer
  const data::Batch b = sample_answers(*student, packed(), 5, options, {.ends = {end}, .seed = 3});
  const int64_t labels = b.labels_BT[0].ne(data::kIgnored).sum().item<int64_t>();
  EXPECT_LE(labels, 3);
  EXPECT_EQ(b.labels_BT[0][labels].item<int64_t>(), end);
  EXPECT_TRUE(at::equal(b.tokens_BT[0].narrow(0, 0, labels + 2), free.tokens_BT[0].narrow(0, 0, labels + 2)));
  EXPECT_EQ(b.tokens_BT[0].narrow(0, labels + 2, b.tokens_BT.size(1) - labels - 2).sum().item<int64_t>(), 0);
}

TEST(OnPolicy, ATextWithoutMarksGivesItsFirstTokens) {
  const auto student = tiny_model(1);
  data::Batch text = packed();
  text.labels_BT = at::cat({text.tokens_BT.narrow(1, 1, 7), at::full({2, 1}, 1, at::kLong)}, 1);
  text.document_BT = text.positions_BT = at::Tensor();
  const data::Batch b = sample_answers(*student, text, 0, {.prompt = 3, .tokens = 2}, {.seed = 3});
  EXPECT_THAT(values(b.tokens_BT.narrow(1, 0, 3)), ElementsAre(1, 2, 3, 9, 10, 11));
}

// A draw belongs to a step, a row of the data and a document: neither the batch that it is in nor the other rows of it
// count.
TEST(OnPolicy, DrawsFollowFromThePlaceAlone) {
  const auto student = tiny_model(1);
  const OnPolicyOptions options{.tokens = 6};
  const data::Batch all = packed();
  const data::Batch both = sample_answers(*student, all, 5, options, {.seed = 3});
  data::Batch second = all;
  for (at::Tensor* x :
       {&second.tokens_BT, &second.labels_BT, &second.document_BT, &second.positions_BT, &second.corpus_BT})
    *x = x->narrow(0, 1, 1);
  second.source_B = second.source_B.narrow(0, 1, 1);
  second.samples = {41};
  const data::Batch alone = sample_answers(*student, second, 5, options, {.seed = 3});
  EXPECT_TRUE(at::equal(alone.tokens_BT[0], both.tokens_BT[2]));
  EXPECT_FALSE(at::equal(sample_answers(*student, all, 6, options, {.seed = 3}).tokens_BT, both.tokens_BT));
  EXPECT_FALSE(at::equal(sample_answers(*student, all, 5, options, {.seed = 4}).tokens_BT, both.tokens_BT));
}

TEST(OnPolicy, AShareOfTheStepsIsSampled) {
  const auto student = tiny_model(1);
  for (const double share : {0.0, 0.25, 1.0}) {
    const auto on_policy = objective({.share = share, .tokens = 2});
    int64_t sampled = 0;
    for (int64_t step = 0; step < 400; ++step) {
      const std::vector<data::Batch> batches = on_policy->prepare(*student, step, {packed()});
      if (batches[0].tokens_BT.size(0) == 3) ++sampled;
    }
    EXPECT_NEAR(static_cast<double>(sampled) / 400, share, share == 0.25 ? 0.07 : 0.0) << share;
  }
}

// Share 0 is distillation on the given answers, to the bit.
TEST(OnPolicy, WithoutASampledStepNothingChanges) {
  const auto student = tiny_model(1);
  const auto on_policy = objective({.share = 0.0});
  const auto plain = make_distillation(make_live_teacher(tiny_model(2)), {{.fn = "reverse_kl"}}, *student, 3);
  const std::vector<data::Batch> batches = on_policy->prepare(*student, 0, {packed()});
  EXPECT_TRUE(at::equal((*on_policy)(*student, batches[0]).sum, (*plain)(*student, packed()).sum));
}

// A step's figures: how much was sampled, how long answers are, and how many have no end.
TEST(OnPolicy, FiguresAreOfAnswers) {
  const auto student = tiny_model(1);
  const auto on_policy = objective({.share = 1.0, .tokens = 4});
  EXPECT_THAT(on_policy->part_names(), ElementsAre("reverse_kl", "sampled", "answer_tokens", "cut_short"));
  const std::vector<data::Batch> batches = on_policy->prepare(*student, 0, {packed()});
  const train::LossSum sum = (*on_policy)(*student, batches[0]);
  std::vector<double> means;
  for (const at::Tensor& part : sum.parts) means.push_back(part.item<double>() / 12.0);
  EXPECT_THAT(on_policy->figures(means), ElementsAre(means[0], 1.0, 4.0, 1.0));
}

// Of answers of one length every one is cut short, unless its last token is an end, however often that is named.
TEST(OnPolicy, AnAnswerWithAnEndIsNotCutShort) {
  const auto student = tiny_model(1);
  const auto free = objective({.share = 1.0, .tokens = 1});
  const at::Tensor drawn_B = free->prepare(*student, 0, {packed()})[0].tokens_BT.select(1, 2);
  const auto end = static_cast<int32_t>(drawn_B[0].item<int64_t>());
  const auto ended = drawn_B.eq(end).sum().item<double>();
  const auto on_policy = objective({.share = 1.0, .tokens = 1}, {end, end});
  const std::vector<data::Batch> batches = on_policy->prepare(*student, 0, {packed()});
  const train::LossSum sum = (*on_policy)(*student, batches[0]);
  std::vector<double> means;
  for (const at::Tensor& part : sum.parts) means.push_back(part.item<double>() / 3.0);
  EXPECT_THAT(on_policy->figures(means),
              ElementsAre(means[0], 1.0, 1.0, ::testing::DoubleNear((3 - ended) / 3, 1e-12)));
}

// The student's gradient is that of the divergence at its own tokens: the sampled batch, given as data, says the same.
TEST(OnPolicy, LearnsFromTheTeacherAtTheSampledTokens) {
  const auto student = tiny_model(1);
  const auto on_policy = objective({.share = 1.0, .tokens = 4});
  const data::Batch sampled = on_policy->prepare(*student, 7, {packed()})[0];
  (*on_policy)(*student, sampled).sum.backward();
  const at::Tensor gradient = student->parameters().at("embed.weight").working.grad().clone();

  const auto twin = tiny_model(1);
  const auto plain = make_distillation(make_live_teacher(tiny_model(2)), {{.fn = "reverse_kl"}}, *twin, 3);
  (*plain)(*twin, sampled).sum.backward();
  EXPECT_TRUE(at::equal(gradient, twin->parameters().at("embed.weight").working.grad()));
}

}  // namespace retort::distill
