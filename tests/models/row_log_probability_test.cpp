#include "models/row_log_probability.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "kernels/linear_loss.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

struct Tiny {
  Decoder model{DecoderSpec{.vocabulary = 32,
                            .context = 16,
                            .layers = 2,
                            .width = 16,
                            .heads = 2,
                            .kv_heads = 2,
                            .head_dim = 8,
                            .ffn_width = 32}};
  at::Tensor tokens_BT = (at::arange(24) * 7 % 31).view({3, 8}), labels_BT = (tokens_BT + 1) % 32;
  Tiny() {
    initialise(model.parameters(), "normal", 0.3, 1);
    IdentityMap identity;
    bind_working(model.parameters(), identity, at::kFloat);
    labels_BT[0].narrow(0, 0, 5).fill_(kernels::kIgnoredLabel);  // a prompt
    labels_BT[2].fill_(kernels::kIgnoredLabel);
  }
};

TEST(RowLogProbability, SumsOverEachRowsLabels) {
  Tiny tiny;
  const at::NoGradGuard no_grad;
  const RowLogProbability rows = row_log_probability(tiny.model, {tiny.tokens_BT}, tiny.labels_BT);
  EXPECT_TRUE(at::equal(rows.labels_B, at::tensor({3, 8, 0}, at::kLong)));
  const at::Tensor log_p =
      at::log_softmax(tiny.model.head().logits(tiny.model.hidden({tiny.tokens_BT})).to(at::kDouble), 2);
  for (int64_t b = 0; b < 3; ++b) {
    double expected = 0;
    for (int64_t t = 0; t < 8; ++t)
      if (const int64_t label = tiny.labels_BT[b][t].item<int64_t>(); label != kernels::kIgnoredLabel)
        expected += log_p[b][t][label].item<double>();
    EXPECT_NEAR(rows.sum_B[b].item<double>(), expected, 1e-5 * std::abs(expected)) << b;
  }
}

// The numbers that training's cross-entropy gives for a row by itself, to the bit.
TEST(RowLogProbability, IsTheCrossEntropyOfTheRow) {
  Tiny tiny;
  const at::NoGradGuard no_grad;
  const RowLogProbability rows = row_log_probability(tiny.model, {tiny.tokens_BT}, tiny.labels_BT);
  const at::Tensor h_BTD = tiny.model.hidden({tiny.tokens_BT});
  for (int64_t b = 0; b < 3; ++b)
    EXPECT_EQ(-rows.sum_B[b].item<float>(),
              kernels::linear_cross_entropy(h_BTD[b], tiny.model.head(), tiny.labels_BT[b]).item<float>());
}

// What a loss on pairs of rows needs: a factor for each row reaches the weights.
TEST(RowLogProbability, IsDifferentiableRowByRow) {
  Tiny tiny;
  const at::Tensor weight = tiny.model.parameters().at("layers.0.ffn.up.weight").working;
  const auto gradient_of = [&](const std::function<at::Tensor(const at::Tensor&)>& loss) {
    const at::Tensor sum_B = row_log_probability(tiny.model, {tiny.tokens_BT}, tiny.labels_BT).sum_B;
    return torch::autograd::grad({loss(sum_B)}, {weight})[0];
  };
  const at::Tensor first = gradient_of([](const at::Tensor& sum_B) { return sum_B[0]; });
  const at::Tensor second = gradient_of([](const at::Tensor& sum_B) { return sum_B[1]; });
  const at::Tensor both = gradient_of([](const at::Tensor& sum_B) { return 3 * sum_B[0] - 2 * sum_B[1]; });
  EXPECT_GT(first.abs().max().item<double>(), 1e-3);
  EXPECT_LT(testing::relative_error(both, 3 * first - 2 * second), 1e-5);
  EXPECT_EQ(gradient_of([](const at::Tensor& sum_B) { return sum_B[2]; }).abs().max().item<double>(), 0.0);
}

TEST(RowLogProbability, NamesLabelsOfAnotherShape) {
  Tiny tiny;
  EXPECT_THROW(row_log_probability(tiny.model, {tiny.tokens_BT}, tiny.labels_BT.narrow(1, 0, 7)), ShapeError);
}

}  // namespace
}  // namespace retort::models
