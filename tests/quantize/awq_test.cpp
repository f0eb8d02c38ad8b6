#include "quantize/awq.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/random.h"
#include "models/decoder.h"
#include "quantize/gptq.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using models::DecoderSpec;
using models::Parameter;

DecoderSpec small(int64_t kv_heads) {
  return {.vocabulary = 64,
          .context = 32,
          .layers = 3,
          .width = 32,
          .heads = 4,
          .kv_heads = kv_heads,
          .head_dim = 8,
          .ffn_width = 64};
}

std::unique_ptr<models::Decoder> random_model(const DecoderSpec& spec) {
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.2, 4);
  const at::NoGradGuard no_grad;
  for (Parameter& p : model->parameters().unique())
    if (p.master.dim() == 1) {
      at::Tensor noise = at::empty_like(p.master);
      Random(2, p.name).fill_normal(noise, 0.3);
      p.master.add_(noise);
    }
  return model;
}

const models::TokenBlock kBlock{at::arange(48, at::kLong).view({2, 24}), {}, {}};

at::Tensor three_bits(const at::Tensor& w_OI) {
  const at::Tensor scale = w_OI.abs().amax(1, true) / 3;
  return at::clamp(at::round(w_OI / scale), -4, 3) * scale;
}

std::vector<std::string> makers(models::Decoder& model, const InputGroup& group) {
  std::vector<std::string> out;
  for (const Parameter* p : input_makers(model, group)) out.push_back(p->name);
  return out;
}

// Folds a scale that is far from 1 into every group that takes one and returns how many did.
int fold_all(models::Decoder& model) {
  Calibration calibration(model, {kBlock});
  int folded = 0;
  for (int64_t layer = 0; layer < model.spec().layers; ++layer) {
    for (InputGroup& group : calibration.collect(layer)) {
      if (input_makers(model, group).empty()) continue;
      at::Tensor scales_I = at::empty({group.matrices.front()->master.size(1)});
      Random(6, group.matrices.front()->name).fill_normal(scales_I, 1.0);
      fold_scales(model, group, scales_I.exp());
      ++folded;
    }
    calibration.advance(layer);
  }
  return folded;
}

}  // namespace

TEST(Awq, FoldingChangesNoOutput) {
  DecoderSpec shared = small(2), gpt2 = small(4);
  shared.share_ffn = true;
  gpt2.family = "gpt2";
  gpt2.norm = models::NormKind::kLayer;
  gpt2.ffn = models::FfnKind::kGelu;
  gpt2.positions = models::PositionKind::kLearned;
  gpt2.attention_bias = gpt2.ffn_bias = true;
  DecoderSpec bitnet = small(2);
  bitnet.family = "bitnet";
  bitnet.ffn = models::FfnKind::kRelu2glu;
  bitnet.sub_norms = true;
  DecoderSpec repeated = small(4);
  repeated.layers = 4;
  repeated.repeat = 2;
  const std::vector<std::pair<DecoderSpec, int>> cases = {
      {small(4), 3 * 4},    // all four groups of a layer
      {small(2), 3 * 3},    // v has fewer heads than o reads
      {shared, 3 * 1 + 2},  // one feed-forward network, the norms of all layers
      {gpt2, 3 * 3},        // nothing goes through gelu; norms and v have biases
      {bitnet, 3 * 4},      // its norms stand before o and down
      {repeated, 2 * 4},
  };
  for (const auto& [spec, groups] : cases) {
    const at::NoGradGuard no_grad;
    const auto model = random_model(spec), before = random_model(spec);
    EXPECT_EQ(fold_all(*model), groups);
    EXPECT_FALSE(at::equal(model->parameters().at("layers.0.attn.q.weight").master,
                           before->parameters().at("layers.0.attn.q.weight").master));
    EXPECT_LT(testing::relative_error(model->hidden(kBlock), before->hidden(kBlock)), 1e-4);
  }
}

TEST(Awq, TheMakersOfAnInputAreThoseOfAllItsUses) {
  DecoderSpec spec = small(4);
  spec.share_ffn = true;
  const auto model = random_model(spec);
  Calibration calibration(*model, {kBlock});
  const auto groups = calibration.collect(0);
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(makers(*model, groups[0]), std::vector<std::string>{"layers.0.attn_norm.weight"});
  EXPECT_EQ(makers(*model, groups[1]), std::vector<std::string>{"layers.0.attn.v.weight"});
  EXPECT_EQ(makers(*model, groups[2]),
            (std::vector<std::string>{"layers.0.ffn_norm.weight", "layers.1.ffn_norm.weight",
                                      "layers.2.ffn_norm.weight"}));
  EXPECT_EQ(makers(*model, groups[3]), std::vector<std::string>{"layers.0.ffn.up.weight"});
}

TEST(Awq, ScalesSpareTheInputsThatMatter) {
  const auto model = random_model(small(4));
  Parameter& p = model->parameters().at("layers.0.attn.q.weight");
  at::Tensor x = at::empty({512, 32});
  Random(1, "x").fill_normal(x, 1.0);
  x.narrow(1, 3, 1).mul_(30);  // one loud input
  InputGroup group{{&p}, at::matmul(x.t(), x).to(at::kDouble), 512};
  const auto round = [](const Parameter&, const at::Tensor& w_OI) { return three_bits(w_OI); };
  const at::Tensor scales_I = awq_scales(group, round);
  const double plain = output_error(p.master, three_bits(p.master), group.second_moment_II);
  const double scaled =
      output_error(p.master, three_bits(p.master * scales_I) / scales_I, group.second_moment_II);
  EXPECT_LT(scaled, 0.5 * plain);
  EXPECT_EQ(scales_I.argmax().item<int64_t>(), 3);
  EXPECT_NEAR((scales_I.max() * scales_I.min()).item<double>(), 1.0, 1e-5);
}

}  // namespace retort::quantize
