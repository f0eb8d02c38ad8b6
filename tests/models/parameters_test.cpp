#include "models/parameters.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

TEST(Parameters, AnAliasIsTheSameParameter) {
  Parameters p;
  p.add("embed.weight", {5, 3}, Role::kEmbedding);
  p.add("layers.0.ffn.up.weight", {4, 3}, Role::kMatrix);
  p.alias("layers.1.ffn.up.weight", "layers.0.ffn.up.weight");
  p.alias("layers.2.ffn.up.weight", "layers.1.ffn.up.weight");  // through an alias
  p.alias("lm_head.weight", "embed.weight");
  EXPECT_EQ(&p.at("layers.2.ffn.up.weight"), &p.at("layers.0.ffn.up.weight"));
  EXPECT_EQ(p.at("layers.2.ffn.up.weight").name, "layers.0.ffn.up.weight");
  EXPECT_THAT(
      p.at("layers.1.ffn.up.weight").uses,
      ::testing::ElementsAre("layers.0.ffn.up.weight", "layers.1.ffn.up.weight", "layers.2.ffn.up.weight"));
  EXPECT_EQ(p.unique().size(), 2u);
  EXPECT_TRUE(p.is_tied_head("lm_head.weight"));
  EXPECT_FALSE(p.is_tied_head("embed.weight"));
  EXPECT_FALSE(p.is_tied_head("layers.2.ffn.up.weight"));
}

TEST(Parameters, CountsStoredAndExpanded) {
  Parameters p;
  p.add("embed.weight", {5, 3}, Role::kEmbedding);
  p.alias("lm_head.weight", "embed.weight");
  p.add("a.weight", {4, 3}, Role::kMatrix);
  p.alias("b.weight", "a.weight");
  EXPECT_EQ(p.stored(), 15 + 12);
  EXPECT_EQ(p.expanded(), 15 + 2 * 12);
}

TEST(Parameters, RefusesUnknownAndDuplicateNames) {
  Parameters p;
  p.add("final_norm.weight", {3}, Role::kNorm);
  EXPECT_THROW(p.add("final_norm.weight", {3}, Role::kNorm), InternalError);
  EXPECT_THROW(p.alias("final_norm.weight", "final_norm.weight"), InternalError);
  EXPECT_THROW(p.alias("x", "y"), InternalError);
  try {
    p.at("final_norm.weigth");
    FAIL();
  } catch (const InternalError& e) {
    EXPECT_THAT(e.what(), ::testing::HasSubstr("did you mean \"final_norm.weight\""));
  }
  EXPECT_EQ(p.unique().size(), 1u);
}

TEST(Parameters, OnTheMetaDeviceNothingIsAllocated) {
  Parameters p(at::kMeta);
  p.add("huge.weight", {int64_t{1} << 22, int64_t{1} << 22}, Role::kMatrix);  // 64 TiB
  EXPECT_EQ(p.stored(), int64_t{1} << 44);
}

TEST(Parameters, KnowTheirShapeAndPlaceWithoutAMaster) {
  Parameters p(at::kMeta);
  Parameter& w = p.add("w", {300, 131}, Role::kMatrix);
  w.master = at::Tensor();
  EXPECT_EQ(w.shape, (std::vector<int64_t>{300, 131}));
  EXPECT_EQ(w.numel(), 300 * 131);
  EXPECT_EQ(p.stored(), 300 * 131);
  EXPECT_EQ(w.placement.device, at::kMeta);
  EXPECT_EQ(w.placement.owned, cut_into_blocks({300, 131}));
  EXPECT_THROW(p.add("scalar", {}, Role::kBias), ShapeError);
}

TEST(Parameters, AFrozenOneTakesNoGradient) {
  Parameters p;
  Parameter& embed = p.add("embed.weight", {2}, Role::kEmbedding);
  Parameter& other = p.add("other", {2}, Role::kMatrix);
  p.alias("lm_head.weight", "embed.weight");
  p.at("lm_head.weight").freeze();
  EXPECT_TRUE(embed.frozen);
  EXPECT_FALSE(other.frozen);
  (embed.working * other.working).sum().backward();
  EXPECT_FALSE(embed.working.grad().defined());
  EXPECT_TRUE(other.working.grad().defined());
}

}  // namespace
}  // namespace retort::models
