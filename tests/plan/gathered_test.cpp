#include "plan/gathered.h"

#include <gtest/gtest.h>

#include "models/adapters.h"
#include "models/decoder.h"
#include "tests/plan/shapes.h"
#include "train/divided_model.h"

namespace retort::plan {
namespace {

// Embedding and head 100 x 8, tied or not; of a layer four 8 x 8, three 8 x 20 and two norms.
constexpr double kTable = 800, kAttention = 4 * 64, kNetwork = 3 * 160, kNorms = 16;

models::DecoderSpec spec(int64_t layers) {
  return {.vocabulary = 100,
          .context = 16,
          .layers = layers,
          .width = 8,
          .heads = 2,
          .kv_heads = 2,
          .head_dim = 4,
          .ffn_width = 20,
          .tie_embeddings = false};
}

}  // namespace

TEST(GatheredBy, LayersTwiceTheirLastAndBothEndsOnce) {
  const Gathered five = gathered_by(*shape(spec(5)));
  const double layer = kAttention + kNetwork;
  EXPECT_DOUBLE_EQ(five.divided.matrices, 2 * kTable + 5 * layer);
  EXPECT_DOUBLE_EQ(five.divided.f32, 5 * kNorms + 8);
  EXPECT_DOUBLE_EQ(five.brought.matrices, 2 * kTable + (2 * 5 - 1) * layer);
  EXPECT_DOUBLE_EQ(five.brought.f32, (2 * 5 - 1) * kNorms + 8);
  EXPECT_DOUBLE_EQ(five.passed.matrices, 2 * kTable + 5 * layer);
  EXPECT_DOUBLE_EQ(five.at_once.matrices, kTable + layer);
  EXPECT_DOUBLE_EQ(five.at_once.bytes(2), 2 * (kTable + layer) + 4 * five.at_once.f32);
}

TEST(GatheredBy, WhatIsSharedIsBroughtOnce) {
  models::DecoderSpec shared = spec(5);
  shared.share_ffn = true;
  shared.tie_embeddings = true;
  const Gathered five = gathered_by(*shape(shared));
  EXPECT_DOUBLE_EQ(five.divided.matrices, kTable + 5 * kAttention + kNetwork);
  // The table leaves while layers are read, and the network is there from the first layer to the head and back.
  EXPECT_DOUBLE_EQ(five.brought.matrices, 2 * kTable + (2 * 5 - 1) * kAttention + kNetwork);
}

// Held to a teacher's second pass. A tied table is there since the first one; sizes are multiples of the alignment.
TEST(GatheredBy, APassOfATeacherBringsItsGroupsOnce) {
  for (const bool tied : {false, true}) {
    models::DecoderSpec of = spec(3);
    of.width = 16, of.head_dim = 8, of.ffn_width = 32;
    of.tie_embeddings = tied;
    models::Decoder whole(of);
    models::initialise(whole.parameters(), "normal", 0.1, 1);
    const double passed = gathered_by(whole).passed.bytes(4);
    comm::run_thread_ranks(2, [&](comm::Comm& comm) {
      const at::NoGradGuard no_grad;
      train::DividedModel teacher(std::make_unique<models::Decoder>(of, at::kMeta), at::kFloat, comm, 1);
      teacher.take([&](const models::Parameter& p) { return whole.parameters().at(p.name).master; });
      const at::Tensor tokens_BT = at::arange(8).view({1, 8});
      teacher.model().hidden({.tokens_BT = tokens_BT});
      const int64_t before = teacher.weights().brought_bytes();
      teacher.model().hidden({.tokens_BT = tokens_BT});
      EXPECT_DOUBLE_EQ(static_cast<double>(teacher.weights().brought_bytes() - before), passed) << tied;
    });
  }
}

TEST(GatheredBy, AdaptersAndCodesStayWhole) {
  const auto base = [] { return models::adapt(shape(spec(2)), {}, 0); };
  EXPECT_DOUBLE_EQ(gathered_by(*base()).divided.matrices, gathered_by(*shape(spec(2))).divided.matrices);
  EXPECT_DOUBLE_EQ(gathered_by(*base(), "nf4").divided.matrices, 2 * kTable);
}

TEST(GatheredBy, AModelWithoutGroupsGathersNothing) {
  const auto model = shape(models::families().at("spacebyte").defaults);
  EXPECT_DOUBLE_EQ(gathered_by(*model).divided.all(), 0);
}

}  // namespace retort::plan
