#include "recipes/plan_recipe.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/error.h"
#include "recipes/read_recipe.h"
#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::recipes {

using ::testing::HasSubstr;

TEST(PlanRecipe, RefusesWhatCannotBe) {
  const std::vector<std::string> text = {"run.text=/etc/passwd"};
  const auto error_of = [](const std::vector<std::string>& sets, int64_t ranks,
                           const char* device) -> std::string {
    try {
      plan_recipe("quickstart", sets, ranks, device);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of(text, 1, "h20"), HasSubstr("unknown device \"h20\"; did you mean \"h200\"?"));
  EXPECT_THAT(error_of(text, 7, "h100"), HasSubstr("data.batch_tokens"));
  EXPECT_THAT(error_of({"run.text=/etc/passwd", "train.steps=0"}, 1, "h100"), HasSubstr("train.steps"));
}

// From a machine that has neither the text nor the GPU of the run.
TEST(PlanRecipe, NeedsNeitherTextNorDevice) {
  const RecipePlan plan = plan_recipe("quickstart", {"run.text=[]", "run.device=cuda:127"}, 1, "h100");
  EXPECT_THAT(plan.text, HasSubstr("rank(s) of h100"));
  EXPECT_EQ(plan_recipe("quickstart", {"run.text=/nowhere.txt"}, 1, "h100").text, plan.text);
  EXPECT_THROW(read_recipe("quickstart", {"run.text=/etc/passwd", "run.device=cuda:127"}), ConfigError);
  EXPECT_THROW(read_recipe("quickstart", {"run.text=/nowhere.txt"}), ConfigError);
  EXPECT_THROW(plan_recipe("quickstart", {"run.device=gpu"}, 1, "h100"), ConfigError) << "no device at all";
}

TEST(PlanRecipe, NeedsNoFileThatIsOnlyJudged) {
  const testing::TemporaryDirectory directory;
  const std::string path = (directory / "judged.yaml").string();
  std::ofstream(path) << R"(
data: { train: stage:text, sequence: 64, batch_tokens: 512, micro_batch: 4 }
stages:
  - { name: text, kind: prepare }
  - { name: model, kind: train, watch: { tasks: [hellaswag], data: /nowhere } }
  - { name: score, kind: evaluate, model: { from: stage:model }, evaluate: { text: /nowhere.txt } }
  - { name: tasks, kind: evaluate, model: { from: stage:model }, evaluate: { tasks: [hellaswag], data: /nowhere } }
)";
  EXPECT_THAT(plan_recipe(path, {"run.text=/nowhere.txt", "run.dir=" + path + "/run"}, 1, "h100").text,
              HasSubstr("rank(s) of h100"));
  const auto refused = [&](const std::vector<std::string>& sets, auto read) {
    try {
      read(path, sets);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto run = [](const auto&... what) { read_recipe(what...); };
  for (const char* key : {"run.text", "watch.data", "evaluate.text", "evaluate.data"})
    EXPECT_THAT(refused({"run.text=/nowhere.txt"}, run), HasSubstr(key));
  const auto plan = [](const auto&... what) { plan_recipe(what..., 1, "h100"); };
  EXPECT_THAT(refused({"stages.score.evaluate.text=stage:txt"}, plan), HasSubstr("did you mean \"text\"?"))
      << "that it names no stage is of the recipe";
}

// 405 B parameters: 1.6 TB in f32.
TEST(PlanRecipe, AllocatesNoWeights) {
  RETORT_NEEDS_COUNTED_MEMORY();
  testing::TemporaryDirectory directory;
  const Path path = directory / "large.yaml";
  std::ofstream(path) << R"(
data: { train: stage:text, sequence: 8192, batch_tokens: 16777216, micro_batch: 1 }
model: { vocabulary: 128256, context: 8192, layers: 126, width: 16384, heads: 128, kv_heads: 8, ffn_width: 53248,
         tie_embeddings: false }
train: { precision: bf16 }
stages: [ { name: text, kind: prepare }, { name: model, kind: train } ]
)";
  std::string text;
  const int64_t growth = testing::peak_growth(
      [&] { text = plan_recipe(path.string(), {"run.text=/etc/passwd"}, 2048, "h100").text; });
  EXPECT_THAT(text, HasSubstr("405,853,388,800 stored"));
  EXPECT_THAT(text, HasSubstr("does not fit the 72.00 GB"));
  EXPECT_LT(growth, 64 * testing::kMiB);
}

}  // namespace retort::recipes
