#include "distill/teacher.h"

#include "core/error.h"
#include "models/weight_map.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::same_bits;

std::unique_ptr<models::Decoder> tiny_model(uint64_t seed) {
  models::DecoderSpec spec{.vocabulary = 32,
                           .context = 16,
                           .layers = 2,
                           .width = 16,
                           .heads = 2,
                           .kv_heads = 2,
                           .head_dim = 8,
                           .ffn_width = 32};
  auto model = std::make_unique<models::Decoder>(spec);
  models::initialise(model->parameters(), "normal", 0.3, seed);
  models::IdentityMap identity;
  models::bind_working(model->parameters(), identity, at::kFloat);
  return model;
}

data::Batch batch_of(int64_t rows, int64_t tokens) {
  data::Batch batch;
  batch.tokens_BT = (at::arange(rows * tokens) * 7 % 31).view({rows, tokens});
  batch.labels_BT = (batch.tokens_BT + 1) % 32;
  return batch;
}

TEST(LiveTeacher, GivesTheModelsLastHiddenStateAndHead) {
  std::unique_ptr<models::Decoder> same = tiny_model(1);
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  const data::Batch batch = batch_of(3, 8);
  const TeacherSignal signal = teacher->signal(batch);
  EXPECT_EQ(signal.heads.at(0).hidden_ND.sizes(), at::IntArrayRef({24, 16}));
  EXPECT_TRUE(same_bits(signal.heads.at(0).hidden_ND, same->hidden({batch.tokens_BT}).flatten(0, 1)));
  EXPECT_TRUE(same_bits(signal.heads.at(0).weight_VD, same->head().weight_VD));
  EXPECT_EQ(teacher->vocabulary(), 32);
  EXPECT_DOUBLE_EQ(teacher->flops_per_token(8), same->flops_per_token(8) / 3);
}

TEST(LiveTeacher, SignalsCarryNoGradient) {
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  const TeacherSignal signal = teacher->signal(batch_of(2, 8));
  EXPECT_FALSE(signal.heads.at(0).hidden_ND.requires_grad());
  EXPECT_FALSE(signal.heads.at(0).weight_VD.requires_grad());
}

TEST(LiveTeacher, RefusesSequencesBeyondItsContext) {
  const std::unique_ptr<Teacher> teacher = make_live_teacher(tiny_model(1));
  EXPECT_NO_THROW(teacher->signal(batch_of(1, 16)));
  try {
    teacher->signal(batch_of(1, 17));
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "[distill] the teacher reads at most 16 tokens, got a batch of sequences of 17");
  }
}

}  // namespace
}  // namespace retort::distill
