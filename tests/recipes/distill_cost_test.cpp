#include "recipes/stages/distill_cost.h"

#include <gmock/gmock.h>

#include "models/decoder.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
data: { train: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 100, precision: fp32, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, model: { layers: 3 } }
  - { name: labels, kind: capture, model: { from: stage:teacher }, capture: { draws: 100 } }
  - name: student
    kind: train
    distill: { teacher: { model: stage:teacher }, losses: [ { fn: forward_kl } ] }
  - name: frugal
    kind: train
    distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: sampled } ] }
)";

using DistillCostOf = RecipeRun;

}  // namespace

// One layer: 4 * 32^2 of attention and 3 * 32 * 64 of the feed-forward network, 6 operations each; the head
// of 256 * 32; attention's products 12 * 32 * 32. Three layers and a third of that for the teacher's forward
// pass.
TEST_F(DistillCostOf, FollowsFromTheRecipe) {
  const Recipe r = recipe(kRecipe);
  const DistillCost cost = *distill_cost(r, *r.find("student"));
  const double layer = 6 * (4 * 32 * 32 + 3 * 32 * 64) + 12 * 32 * 32, head = 6 * 256 * 32;
  EXPECT_DOUBLE_EQ(cost.student_flops, layer + head);
  EXPECT_DOUBLE_EQ(cost.teacher_flops, (3 * layer + head) / 3);
  EXPECT_DOUBLE_EQ(cost.tokens, 25600);
  EXPECT_DOUBLE_EQ(cost.corpus_tokens, 0) << "not prepared yet";
  const models::Decoder teacher(r.find("teacher")->get<ModelOptions>().spec(), at::kMeta);
  EXPECT_DOUBLE_EQ(cost.teacher_bytes_f32, 4.0 * static_cast<double>(teacher.parameters().stored()));
  const DistillCost frugal = *distill_cost(r, *r.find("frugal"));
  EXPECT_EQ(frugal.capture.draws, 100);
  EXPECT_DOUBLE_EQ(frugal.teacher_flops, cost.teacher_flops);
  EXPECT_NEAR(frugal.labels, 10.5, 1e-9);
  EXPECT_FALSE(distill_cost(r, *r.find("teacher")).has_value());
}

TEST_F(DistillCostOf, KnowsTheCorpusOnceItIsThere) {
  const Recipe r = recipe(kRecipe);
  EXPECT_THAT(capture_plan(r, *r.find("labels")), ::testing::EndsWith("about 32.5 bytes a token\n"));
  run(r, {.only = "prepare"});
  EXPECT_THAT(capture_plan(r, *r.find("labels")), HasSubstr(" tokens: "));
  const DistillCost cost = *distill_cost(r, *r.find("student"));
  EXPECT_EQ(cost.corpus_tokens, static_cast<double>(data::TokenShards(in_run("text/train")).size()));
}

TEST(DistillCost, TheTableAddsUp) {
  DistillCost cost{.tokens = 4e9,
                   .corpus_tokens = 1e9,
                   .student_flops = 6e9,
                   .teacher_flops = 16e9,
                   .teacher_bytes_f32 = 32e9,
                   .vocabulary = 32000,
                   .batch_tokens = 8192,
                   .labels = 12};
  const std::string table = distill_cost_table(cost);
  EXPECT_THAT(table, HasSubstr("cached, 50 draws"));
  EXPECT_THAT(table, ::testing::ContainsRegex("FLOPs a trained token +2.2e\\+10 +6e\\+09\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("FLOPs of the capture +- +1.6e\\+19\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("FLOPs in all +8.8e\\+19 +4e\\+19\n"));
  EXPECT_THAT(table, ::testing::ContainsRegex("cache +- +37.01 GB\n"));
  EXPECT_THAT(table, HasSubstr("4 epochs of 1000.00M"));
  cost.corpus_tokens = 0;
  EXPECT_THAT(distill_cost_table(cost), HasSubstr("37.0 B a token"));
}

TEST(DistillCost, ExpectedLabelsAreThoseMeasured) {
  EXPECT_NEAR(expected_labels({.draws = 50}, 256), 7.4, 0.1);
  EXPECT_NEAR(expected_labels({.draws = 10}, 256), 3.5, 0.2);
  EXPECT_NEAR(expected_labels({.draws = 5}, 256), 2.4, 0.1);
  EXPECT_NEAR(expected_labels({.draws = 50}, 128256), 12.1, 0.1);
  EXPECT_EQ(expected_labels({.draws = 1}, 128256), 1);
  EXPECT_EQ(expected_labels({.kind = "top_k", .k = 300}, 256), 256);
}

}  // namespace retort::recipes
