#include "quantize/calibration.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "models/decoder.h"
#include "tests/data/corpus.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using models::DecoderSpec;
using models::Parameter;

DecoderSpec small() {
  return {.vocabulary = 64,
          .context = 32,
          .layers = 4,
          .width = 32,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .ffn_width = 48};
}

std::unique_ptr<models::Decoder> random_model(const DecoderSpec& spec) {
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.1, 4);
  return model;
}

std::vector<models::TokenBlock> random_blocks(int64_t blocks) {
  std::vector<models::TokenBlock> out;
  for (int64_t b = 0; b < blocks; ++b) {
    at::Tensor tokens = at::empty({2, 16}, at::kLong);
    const Random random(8, "test/tokens", static_cast<uint64_t>(b));
    for (int64_t i = 0; i < tokens.numel(); ++i)
      tokens.mutable_data_ptr<int64_t>()[i] =
          static_cast<int64_t>(random.below(static_cast<uint64_t>(i), 64));
    out.push_back({tokens, {}, {}});
  }
  return out;
}

// The same sums from whole forward passes that watch one matrix.
at::Tensor by_hand(models::Decoder& model, const std::string& name,
                   const std::vector<models::TokenBlock>& blocks) {
  const at::NoGradGuard no_grad;
  Parameter& p = model.parameters().at(name);
  at::Tensor sum = at::zeros({p.master.size(1), p.master.size(1)}, at::kDouble);
  p.observer = [&](const at::Tensor& x) {
    const at::Tensor rows = x.reshape({-1, x.size(-1)}).to(at::kDouble);
    sum += at::matmul(rows.t(), rows);
  };
  for (const models::TokenBlock& block : blocks) model.hidden(block);
  p.observer = nullptr;
  return sum;
}

std::vector<std::string> names(const InputGroup& group) {
  std::vector<std::string> out;
  for (const Parameter* p : group.matrices) out.push_back(p->name);
  return out;
}

}  // namespace

TEST(Calibration, SumsWhatEachMatrixReads) {
  const auto model = random_model(small());
  const auto blocks = random_blocks(3);
  Calibration calibration(*model, blocks);
  EXPECT_EQ(calibration.tokens(), 3 * 2 * 16);
  for (int64_t layer = 0; layer < 4; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    const std::vector<InputGroup> groups = calibration.collect(layer);
    ASSERT_EQ(groups.size(), 4u);
    EXPECT_EQ(names(groups[0]), (std::vector<std::string>{prefix + "attn.q.weight", prefix + "attn.k.weight",
                                                          prefix + "attn.v.weight"}));
    EXPECT_EQ(names(groups[2]),
              (std::vector<std::string>{prefix + "ffn.gate.weight", prefix + "ffn.up.weight"}));
    for (const InputGroup& group : groups) {
      EXPECT_EQ(group.tokens, calibration.tokens());
      const at::Tensor expected = by_hand(*model, group.matrices.front()->name, blocks);
      EXPECT_LT(testing::relative_error(group.second_moment_II, expected), 1e-5)
          << group.matrices.front()->name;
    }
    calibration.advance(layer);
  }
  for (const Parameter& p : model->parameters().unique()) EXPECT_FALSE(p.observer) << p.name;
}

TEST(Calibration, SharedMatricesAreCollectedOnceOverAllTheirUses) {
  DecoderSpec spec = small();
  spec.share_ffn = true;
  spec.keep_first = 1;  // layers 1, 2 and 3 share one
  const auto model = random_model(spec);
  const auto blocks = random_blocks(2);
  Calibration calibration(*model, blocks);
  std::vector<size_t> groups_of;
  for (int64_t layer = 0; layer < 4; ++layer) {
    const auto groups = calibration.collect(layer);
    groups_of.push_back(groups.size());
    for (const InputGroup& group : groups) {
      const bool shared = group.matrices.front()->uses.size() > 1;
      EXPECT_EQ(shared, layer == 1 && group.matrices.front()->name.find("ffn") != std::string::npos);
      EXPECT_EQ(group.tokens, (shared ? 3 : 1) * calibration.tokens());
      EXPECT_LT(testing::relative_error(group.second_moment_II,
                                        by_hand(*model, group.matrices.front()->name, blocks)),
                1e-5);
    }
    calibration.advance(layer);
  }
  EXPECT_EQ(groups_of, (std::vector<size_t>{4, 4, 2, 2}));
}

TEST(Calibration, ARepeatedBlockBelongsToItsFirstLayer) {
  DecoderSpec spec = small();
  spec.repeat = 2;
  const auto model = random_model(spec);
  Calibration calibration(*model, random_blocks(1));
  EXPECT_EQ(calibration.collect(0).front().tokens, 2 * calibration.tokens());
  calibration.advance(0);
  EXPECT_TRUE(calibration.collect(1).empty());
  calibration.advance(1);
  EXPECT_EQ(calibration.collect(2).size(), 4u);
}

// What a later layer reads has gone through the earlier ones as they are now.
TEST(Calibration, AdvancesWithTheWeightsOfTheMoment) {
  const auto model = random_model(small());
  const auto blocks = random_blocks(1);
  Calibration calibration(*model, blocks);
  const at::Tensor before = by_hand(*model, "layers.1.attn.q.weight", blocks);
  {
    const at::NoGradGuard no_grad;
    model->parameters().at("layers.0.ffn.down.weight").master.mul_(3);
  }
  calibration.advance(0);
  const at::Tensor seen = calibration.collect(1).front().second_moment_II;
  EXPECT_LT(testing::relative_error(seen, by_hand(*model, "layers.1.attn.q.weight", blocks)), 1e-5);
  EXPECT_GT(testing::relative_error(seen, before), 1e-2);
}

TEST(Calibration, BlocksAreSpreadOverTheText) {
  const testing::TemporaryDirectory directory;
  std::vector<int32_t> ids(100);
  for (int32_t i = 0; i < 100; ++i) ids[static_cast<size_t>(i)] = i;
  const auto text = testing::write_corpus(directory / "c", {ids});
  const auto blocks = calibration_blocks(*text, 256, 30, 10, 2);
  ASSERT_EQ(blocks.size(), 2u);
  EXPECT_EQ(blocks[0].tokens_BT.sizes().vec(), (std::vector<int64_t>{2, 10}));
  EXPECT_EQ(blocks[1].tokens_BT.sizes().vec(), (std::vector<int64_t>{1, 10}));
  EXPECT_EQ(blocks[0].tokens_BT[0][0].item<int64_t>(), 0);
  EXPECT_EQ(blocks[0].tokens_BT[1][0].item<int64_t>(), 30);
  EXPECT_EQ(blocks[1].tokens_BT[0][9].item<int64_t>(), 69);
  EXPECT_EQ(calibration_blocks(*text, 256, 100000, 10, 64)[0].tokens_BT.numel(), 100);  // each token once
  EXPECT_THROW(calibration_blocks(*text, 99, 30, 10, 2), DataError);
  EXPECT_THROW(calibration_blocks(*text, 256, 30, 101, 2), DataError);
}

}  // namespace retort::quantize
