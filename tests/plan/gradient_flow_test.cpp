#include "plan/gradient_flow.h"

#include <gtest/gtest.h>

#include "models/bucket_bytes.h"
#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

constexpr double kMiB = 1 << 20;

MadeGradient matrix(int64_t rows, int64_t row, bool f32 = true) {
  return {.rows = {rows * row, {0, rows, 1}, false}, .f32 = f32};
}

}  // namespace

// Last to first, until a bucket is full; each dtype has its own, and what backward does not make is in none.
TEST(GradientBuckets, AreFilledAsBackwardGoes) {
  const auto buckets = models::gradient_buckets({{30, at::kBFloat16},
                                                 {7, at::kFloat},
                                                 {0, at::kFloat},
                                                 {40, at::kBFloat16},
                                                 {8, at::kFloat},
                                                 {9, at::kBFloat16}},
                                                60);
  ASSERT_EQ(buckets.size(), 3u);
  EXPECT_EQ(buckets[0].members, (std::vector<size_t>{5, 3}));
  EXPECT_EQ(buckets[0].elements, 49);
  EXPECT_EQ(buckets[1].members, (std::vector<size_t>{4, 1}));
  EXPECT_EQ(buckets[2].members, (std::vector<size_t>{0}));
}

TEST(GradientBuckets, APieceIsOneRanksPartOfABucket) {
  EXPECT_EQ(models::piece_elements(8 << 20, at::kFloat, 4), (2 << 20) / 4);
  EXPECT_EQ(models::piece_elements(8 << 20, at::kBFloat16, 4), (2 << 20) / 2);
  EXPECT_EQ(models::piece_elements(8 << 20, at::kFloat, 4096), (64 << 10) / 4) << "no shorter message";
  EXPECT_EQ(models::piece_elements(1, at::kFloat, 4), 1);
}

// Two matrices of 16 MiB on four ranks are a bucket each, and 8 MiB of each belong to each of two ranks: four pieces of 2 MiB
// to both, which come to an owner from four.
TEST(GradientFlow, OfTwoMatricesOnFourRanks) {
  const std::vector<MadeGradient> two{matrix(4096, 1024), matrix(4096, 1024)};
  const GradientLayout layout(two, false, 4, models::kBucketBytes);
  GradientFlow owner(layout, 3), other(layout, 0);
  owner.begin_turn(0), other.begin_turn(0);
  EXPECT_DOUBLE_EQ(owner.add(1), (16 + 8 + 2 * (4 + 8)) * kMiB) << "the gradient, its sum, two pieces";
  EXPECT_DOUBLE_EQ(owner.now(), (8 + 2 * (4 + 8)) * kMiB);
  EXPECT_DOUBLE_EQ(other.add(1), (16 + 2 * 4) * kMiB);
  EXPECT_DOUBLE_EQ(other.now(), 2 * 4 * kMiB);
  other.add(0);
  EXPECT_DOUBLE_EQ(other.now(), (8 + 2 * (4 + 8)) * kMiB);
  other.finish(0);
  EXPECT_DOUBLE_EQ(other.now(), 8 * kMiB);
  EXPECT_DOUBLE_EQ(other.share(), 0.25);
}

// On a device the two are one bucket, which waits for both, and what each of four ranks owns of it is one piece: at
// the end all is packed, and an owner has its rows from four.
TEST(GradientFlow, BucketsOfADeviceAreLarger) {
  const std::vector<MadeGradient> two{matrix(4096, 1024), matrix(4096, 1024)};
  const GradientLayout layout(two, false, 4, models::bucket_bytes(true));
  ASSERT_EQ(layout.buckets.size(), 1u);
  EXPECT_EQ(layout.buckets[0].pieces, 1);
  GradientFlow owner(layout, 3);
  owner.begin_turn(0);
  EXPECT_DOUBLE_EQ(owner.add(1), 16 * kMiB);
  EXPECT_DOUBLE_EQ(owner.add(0), (32 + 4 * 8) * kMiB);
  EXPECT_DOUBLE_EQ(owner.now(), (32 + 4 * 8) * kMiB);
}

// Rank and layer decide what waits: a tied table is whole at the end, and nothing of it is sent before.
TEST(BackwardPass, StagesGoFromTheHeadToTheEmbedding) {
  const models::DecoderSpec spec{
      .vocabulary = 100, .layers = 2, .width = 8, .heads = 2, .kv_heads = 2, .head_dim = 4, .ffn_width = 20};
  const auto model = shape(spec);
  const BackwardPass pass = backward_pass(*model, {});
  ASSERT_EQ(pass.stages.size(), 6u);
  const size_t table = 0;
  EXPECT_EQ(pass.stages.front().makes.back(), table);
  EXPECT_EQ(pass.stages.back().makes, (std::vector<size_t>{table}));
  EXPECT_EQ(pass.stages[1].makes.size(), 4u) << "three matrices and a norm";
  EXPECT_EQ(pass.stages[2].makes.size(), 5u);
  EXPECT_EQ(pass.stages[1].group, 2u);
  double kept = 0;
  for (const BackwardStage& stage : pass.stages) kept += stage.kept;
  EXPECT_DOUBLE_EQ(kept, bytes_a_token(kept_activations(*model, {})));
}

}  // namespace retort::plan
