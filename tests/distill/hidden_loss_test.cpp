#include "distill/hidden_loss.h"

#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "core/random.h"
#include "models/decoder.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::relative_error;

std::unique_ptr<models::Decoder> tiny_model(uint64_t seed, int64_t layers, int64_t width) {
  auto model = std::make_unique<models::Decoder>(models::DecoderSpec{.vocabulary = 32,
                                                                     .context = 16,
                                                                     .layers = layers,
                                                                     .width = width,
                                                                     .heads = 2,
                                                                     .kv_heads = 2,
                                                                     .head_dim = 8,
                                                                     .ffn_width = 32});
  models::initialise(model->parameters(), "normal", 0.3, seed);
  return model;
}

std::string pairs_as_text(const LossOptions& options, int64_t student, int64_t teacher, bool last = false) {
  std::string out;
  for (const LayerPair& pair : layer_pairs(options, student, teacher, last))
    out += fmt::format("{}-{} ", pair.student, pair.teacher);
  return out;
}

TEST(HiddenLoss, LayersArePairedByDepth) {
  EXPECT_EQ(pairs_as_text({}, 2, 12), "0-5 1-11 ");
  EXPECT_EQ(pairs_as_text({}, 4, 4), "0-0 1-1 2-2 3-3 ");
  EXPECT_EQ(pairs_as_text({}, 6, 4), "0-0 1-0 2-1 3-2 4-2 5-3 ");
  EXPECT_EQ(pairs_as_text({}, 3, 7, true), "2-6 ");
  EXPECT_EQ(pairs_as_text({.layers = {1}}, 4, 8), "1-3 ");
  EXPECT_EQ(pairs_as_text({.layers = {1, 3}, .teacher_layers = {7, 2}}, 4, 8), "1-7 3-2 ");
  EXPECT_THROW(pairs_as_text({.layers = {4}}, 4, 8), ConfigError);
  EXPECT_THROW(pairs_as_text({.teacher_layers = {1}}, 4, 8), ConfigError);
  EXPECT_THROW(pairs_as_text({.layers = {0}, .teacher_layers = {8}}, 4, 8), ConfigError);
  EXPECT_THROW(pairs_as_text({}, 0, 8), ConfigError);
}

struct Pair {
  std::unique_ptr<models::Decoder> student = tiny_model(1, 2, 16);
  std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(2, 4, 24));
  models::Parameters learned;
  Sides sides(const std::string& name) { return {*student, *teacher, learned, name}; }
};

TEST(HiddenLoss, ProjectionsBelongToTheObjective) {
  Pair both;
  const size_t before = both.student->parameters().unique().size();
  const auto pairs = losses().at("hidden_mse").make_hidden({.fn = "hidden_mse"}, both.sides("hidden_mse_2"));
  ASSERT_EQ(pairs.size(), 2u);
  const models::Parameter& weight = both.learned.at("objective.hidden_mse_2.1.weight");
  EXPECT_EQ(weight.master.sizes(), at::IntArrayRef({24, 16}));
  EXPECT_NEAR(weight.master.std().item<double>(), 0.25, 0.05);
  EXPECT_EQ(both.student->parameters().unique().size(), before);
}

models::LayerTap random_tap(int64_t width, uint64_t seed) {
  const auto random = [&](at::IntArrayRef shape, const char* name) {
    at::Tensor out = at::empty(shape);
    Random(seed, name).fill_normal(out, 1.0);
    return out;
  };
  return {0, random({2, 3, width}, "h"), random({2, 3, 2, 8}, "q"), random({2, 3, 2, 8}, "k"),
          random({2, 3, 2, 8}, "v")};
}

HiddenRows sample_rows() {
  HiddenRows rows{at::ones({2, 3}, at::kBool), {}};
  rows.valid_BT[0][1] = false;
  return rows;
}

TEST(HiddenLoss, MseAndCosineAreWhatTheySay) {
  const HiddenRows rows = sample_rows();
  for (const char* fn : {"hidden_mse", "hidden_cosine"}) {
    Pair both;
    const auto pairs = losses().at(fn).make_hidden({.fn = fn}, both.sides(fn));
    const models::LayerTap s = random_tap(16, 1), t = random_tap(24, 2);
    const at::Tensor w = both.learned.at(fmt::format("objective.{}.0.weight", fn)).master.to(at::kDouble);
    double expected = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t i = 0; i < 3; ++i) {
        if (!rows.valid_BT[b][i].item<bool>()) continue;
        const at::Tensor a = w.matmul(s.h_BTD[b][i].to(at::kDouble)), c = t.h_BTD[b][i].to(at::kDouble);
        expected += std::string(fn) == "hidden_mse"
                        ? ((a - c).square().sum() / c.square().sum()).item<double>()
                        : 1 - (a.dot(c) / (a.norm() * c.norm())).item<double>();
      }
    EXPECT_NEAR(pairs[0].sum(s, t, rows).item<double>(), expected, 1e-5 * expected) << fn;
  }
}

// Whatever the loss: rows that do not count have no part, and the sums of halves are the whole.
TEST(HiddenLoss, SumsOverTheRowsThatCount) {
  for (const LossSpec& spec : losses()) {
    if (!spec.make_hidden) continue;
    Pair both;
    const auto pairs = spec.make_hidden({.fn = spec.name}, both.sides(spec.name));
    const HiddenRows rows = sample_rows();
    models::LayerTap s = random_tap(16, 1);
    const models::LayerTap t = random_tap(24, 2);
    for (at::Tensor* x : {&s.h_BTD, &s.q_BTHK, &s.k_BTGK, &s.v_BTGK}) x->requires_grad_(true);
    const at::Tensor whole = pairs.back().sum(s, t, rows);
    double halves = 0;
    for (const int64_t b : {0, 1}) {
      const auto half = [&](const models::LayerTap& tap) {
        return models::LayerTap{0, tap.h_BTD.narrow(0, b, 1), tap.q_BTHK.narrow(0, b, 1),
                                tap.k_BTGK.narrow(0, b, 1), tap.v_BTGK.narrow(0, b, 1)};
      };
      halves += pairs.back().sum(half(s), half(t), {rows.valid_BT.narrow(0, b, 1), {}}).item<double>();
    }
    EXPECT_NEAR(halves, whole.item<double>(), 1e-5 * halves) << spec.name;
    const HiddenRows none{at::zeros({2, 3}, at::kBool), {}};
    EXPECT_EQ(pairs.back().sum(s, t, none).item<double>(), 0.0) << spec.name;

    const bool of_h = spec.name != "attention_relation";
    const at::Tensor& x = of_h ? s.h_BTD : s.q_BTHK;
    const at::Tensor g = torch::autograd::grad({whole}, {x})[0];
    EXPECT_GT(g.abs().max().item<double>(), 0.0) << spec.name;
    if (of_h) {
      EXPECT_EQ(g[0][1].abs().max().item<double>(), 0.0) << spec.name;
    }
  }
}

TEST(HiddenLoss, RelationsAreChecked) {
  Pair both;
  const auto make = [&](const LossOptions& options) {
    return losses().at("attention_relation").make_hidden(options, both.sides("attention_relation"));
  };
  EXPECT_EQ(make({.fn = "attention_relation"}).size(), 1u) << "the last layer";
  EXPECT_THROW(make({.relations = {}}), ConfigError);
  EXPECT_THROW(make({.relations = {"qk"}}), ConfigError);
}

TEST(LiveTeacher, TapsItsLayers) {
  Pair both;
  EXPECT_EQ(both.teacher->layers().count, 4);
  EXPECT_EQ(both.teacher->layers().width, 24);
  data::Batch batch;
  batch.tokens_BT = at::arange(8).view({2, 4});
  batch.labels_BT = batch.tokens_BT;
  const auto taps = both.teacher->signal(batch, {3, 1}).taps;
  ASSERT_EQ(taps.size(), 2u);
  std::vector<models::LayerTap> expected = {{.layer = 3}, {.layer = 1}};
  const at::NoGradGuard no_grad;  // few rows are multiplied otherwise then
  tiny_model(2, 4, 24)->hidden({batch.tokens_BT, {}, {}, &expected});
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(testing::same_bits(taps[i].h_BTD, expected[i].h_BTD));
    EXPECT_FALSE(taps[i].h_BTD.requires_grad());
  }
}

}  // namespace
}  // namespace retort::distill
