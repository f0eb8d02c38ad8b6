#include "distill/preference.h"

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "core/error.h"
#include "core/host_tensor.h"
#include "tests/distill/tiny_model.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

// Four rows of 8 tokens: prompts of 2 and 4, answers of 3, 6, 2 and 1.
data::Batch four_rows() {
  data::Batch batch;
  batch.tokens_BT = (at::arange(32) * 7 % 31 + 1).view({4, 8});
  batch.labels_BT = at::full({4, 8}, data::kIgnored, at::kLong);
  const int64_t prompts[] = {2, 2, 4, 4}, answers[] = {3, 6, 2, 1};
  for (int64_t b = 0; b < 4; ++b) {
    batch.labels_BT[b]
        .narrow(0, prompts[b] - 1, answers[b])
        .copy_(batch.tokens_BT[b].narrow(0, prompts[b], answers[b]));
    batch.tokens_BT[b].narrow(0, prompts[b] + answers[b], 8 - prompts[b] - answers[b]).zero_();
  }
  batch.chosen_B = at::arange(4).remainder(2) == 0;
  return batch;
}

// Row sums with all logits at once, in f64.
at::Tensor plain_sums(models::Model& model, const data::Batch& batch) {
  const models::Head head = model.head();
  const at::Tensor logits = at::matmul(model.hidden({batch.tokens_BT}), head.weight_VD.t()).to(at::kDouble);
  const at::Tensor valid = batch.labels_BT != data::kIgnored;
  const at::Tensor log_p =
      at::log_softmax(logits, -1).gather(2, batch.labels_BT.clamp_min(0).unsqueeze(2)).squeeze(2);
  return (log_p * valid).sum(1);
}

std::vector<at::Tensor> gradients(models::Model& model, const at::Tensor& loss) {
  std::vector<at::Tensor> leaves;
  for (const models::Parameter& p : model.parameters().unique()) leaves.push_back(p.working);
  return torch::autograd::grad({loss}, leaves);
}

std::unique_ptr<Reference> live(uint64_t seed) {
  return make_live_reference(make_live_teacher(tiny_model(seed)));
}

std::vector<double> values(const at::Tensor& x) {
  const at::Tensor host = x.detach().to(at::kDouble).contiguous();
  const std::span<const double> all = host_values<const double>(host);
  return {all.begin(), all.end()};
}

}  // namespace

// The reference's numbers are the model's, so that no margin is there before the first step.
TEST(Preference, BeginsAtLogTwoExactly) {
  const auto model = tiny_model(2);
  for (const char* name : {"dpo", "cdpo", "dpo_norm"}) {
    const auto objective = make_preference(live(2), {.loss = name});
    const train::LossSum loss = (*objective)(*model, four_rows());
    EXPECT_EQ(loss.sum.item<double>(), 2 * std::log(2.0)) << name;
    EXPECT_EQ(loss.parts.at(2).item<double>(), 0.0) << "margins";
    EXPECT_EQ(loss.parts.at(3).item<double>(), 0.0) << "accuracies are strict";
  }
}

TEST(Preference, HasTheValueAndTheGradientOfTheFormula) {
  const auto model = tiny_model(2), other = tiny_model(1);
  const data::Batch batch = four_rows();
  const at::Tensor own = plain_sums(*model, batch), theirs = plain_sums(*other, batch).detach();
  const double beta = 0.5, nll = 0.3;
  const at::Tensor gains = own - theirs, answers = at::tensor(std::vector<double>{3, 6, 2, 1});
  at::Tensor expected = at::zeros({}, at::kDouble);
  for (int64_t pair = 0; pair < 4; pair += 2)
    expected =
        expected - at::log_sigmoid(beta * (gains[pair] - gains[pair + 1])) - nll * own[pair] / answers[pair];
  const auto objective = make_preference(live(1), {.loss = "dpo", .beta = beta, .nll = nll});
  const train::LossSum loss = (*objective)(*model, batch);
  EXPECT_NEAR(loss.sum.item<double>(), expected.item<double>(), 1e-5);
  const auto ours = gradients(*model, loss.sum), plain = gradients(*model, expected);
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_LT(testing::relative_error(ours[i], plain[i]), 1e-4) << i;

  const std::vector<std::string> names = objective->part_names();
  ASSERT_EQ(loss.parts.size(), names.size());
  const std::vector<double> h = values(gains), l = values(own);
  const std::map<std::string, double> figures = {
      {"rewards/chosen", beta * (h[0] + h[2])},
      {"rewards/rejected", beta * (h[1] + h[3])},
      {"rewards/margins", beta * (h[0] + h[2] - h[1] - h[3])},
      {"rewards/accuracies", (h[0] > h[1] ? 1.0 : 0.0) + (h[2] > h[3] ? 1.0 : 0.0)},
      {"logps/chosen", l[0] + l[2]},
      {"logps/rejected", l[1] + l[3]},
      {"nll", -l[0] / 3 - l[2] / 2}};
  for (size_t i = 0; i < names.size(); ++i)
    EXPECT_NEAR(loss.parts[i].item<double>(), figures.at(names[i]), 1e-4) << names[i];
}

// Two batches of a pair each add up to the batch of both: nothing is a mean.
TEST(Preference, IsASumOverPairs) {
  const auto model = tiny_model(2);
  const data::Batch all = four_rows();
  const auto objective = make_preference(live(1), {.loss = "ipo"});
  double sum = 0;
  for (int64_t pair = 0; pair < 4; pair += 2) {
    data::Batch one;
    one.tokens_BT = all.tokens_BT.narrow(0, pair, 2);
    one.labels_BT = all.labels_BT.narrow(0, pair, 2);
    one.chosen_B = all.chosen_B.narrow(0, pair, 2);
    EXPECT_EQ(objective->counted().in(one), 1);
    sum += (*objective)(*model, one).sum.item<double>();
  }
  EXPECT_EQ(objective->counted().in(all), 2);
  EXPECT_EQ(objective->counted().name, "pairs");
  EXPECT_NEAR((*objective)(*model, all).sum.item<double>(), sum, 1e-5 * sum);
}

TEST(Preference, MismatchedRowsHaveTheNextRowsAnswer) {
  const data::Batch batch = four_rows(), others = mismatched(batch);
  // Row 0: its prompt of 2 and row 1's answer of 6, of which it holds all; row 3: prompt of 4, answer of 3.
  EXPECT_TRUE(others.tokens_BT[0].narrow(0, 0, 2).equal(batch.tokens_BT[0].narrow(0, 0, 2)));
  EXPECT_TRUE(others.tokens_BT[0].narrow(0, 2, 6).equal(batch.tokens_BT[1].narrow(0, 2, 6)));
  EXPECT_TRUE(others.tokens_BT[3].narrow(0, 4, 3).equal(batch.tokens_BT[0].narrow(0, 2, 3)));
  EXPECT_TRUE(others.labels_BT[3].narrow(0, 3, 3).equal(batch.tokens_BT[0].narrow(0, 2, 3)));
  EXPECT_EQ(others.labels_BT[3].ne(data::kIgnored).sum().item<int64_t>(), 3);
  // Row 2's prompt of 4 and row 3's answer of 1 and so on: as many labels as the answer has, or as fit.
  EXPECT_EQ(others.labels_BT[1].ne(data::kIgnored).sum().item<int64_t>(), 2);
  data::Batch alone = batch;
  alone.tokens_BT = batch.tokens_BT.narrow(0, 0, 1);
  alone.labels_BT = batch.labels_BT.narrow(0, 0, 1);
  EXPECT_THROW(mismatched(alone), ConfigError);
}

TEST(Preference, KtoMeasuresFromAnswersToOtherPrompts) {
  const auto model = tiny_model(2), other = tiny_model(1);
  const data::Batch batch = four_rows(), others = mismatched(batch);
  const PreferenceOptions options{.loss = "kto", .beta = 0.5, .desirable_weight = 1.3};
  const at::Tensor own = plain_sums(*model, batch), gains = own - plain_sums(*other, batch).detach(),
                   apart = (plain_sums(*model, others) - plain_sums(*other, others)).detach();
  const at::Tensor z = apart.mean().clamp_min(0.0);
  at::Tensor expected = at::zeros({}, at::kDouble);
  for (int64_t i = 0; i < 4; ++i)
    expected = expected + (i % 2 == 0 ? 1.3 * (1 - at::sigmoid(0.5 * (gains[i] - z)))
                                      : 1 - at::sigmoid(0.5 * (z - gains[i])));
  const auto objective = make_preference(live(1), options);
  const train::LossSum loss = (*objective)(*model, batch);
  EXPECT_NEAR(loss.sum.item<double>(), expected.item<double>(), 1e-5);
  const auto ours = gradients(*model, loss.sum), plain = gradients(*model, expected);
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_LT(testing::relative_error(ours[i], plain[i]), 1e-4) << i;

  EXPECT_EQ(objective->counted().name, "rows");
  std::vector<double> means;
  for (const at::Tensor& part : loss.parts) means.push_back(part.item<double>() / 4);
  const std::vector<double> shown = objective->figures(means), h = values(gains), l = values(own);
  EXPECT_NEAR(shown[0], 0.5 * (h[0] + h[2]) / 2, 1e-4) << "rewards of the good are a mean over the good";
  EXPECT_NEAR(shown[1], 0.5 * (h[1] + h[3]) / 2, 1e-4);
  EXPECT_NEAR(shown[2], shown[0] - shown[1], 1e-12);
  EXPECT_NEAR(shown[4], (l[1] + l[3]) / 2, 1e-4);
  EXPECT_NEAR(shown[5], z.item<double>(), 1e-5);
  EXPECT_EQ(shown[6], 0.5);
}

TEST(Preference, NeedsAReferenceWhereItsLossDoes) {
  EXPECT_THROW(make_preference(nullptr, {.loss = "dpo"}), ConfigError);
  const auto model = tiny_model(2);
  for (const char* name : {"simpo", "orpo", "cpo"}) {
    const train::LossSum loss = (*make_preference(nullptr, {.loss = name}))(*model, four_rows());
    EXPECT_TRUE(std::isfinite(loss.sum.item<double>())) << name;
  }
  data::Batch text = four_rows();
  text.chosen_B = at::Tensor();
  EXPECT_THROW((*make_preference(nullptr, {.loss = "simpo"}))(*model, text), ConfigError);
}

}  // namespace retort::distill
