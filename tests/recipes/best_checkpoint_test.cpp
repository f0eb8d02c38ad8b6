// A stage that keeps its best checkpoint is that model for everybody who opens it.
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 64, micro_batch: 2 }
model: { context: 16, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train:
  { steps: 30, precision: fp32, validate_every: 2, keep_best: true, patience: 4, keep_checkpoints: 1,
    optimizer: { lr: 1.0 }, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: tuned, kind: train }
  - { name: gguf, kind: export, model: { from: stage:tuned }, export: { evaluate: true } }
)";

class BestCheckpoint : public RecipeRun {
 protected:
  // The validation figures of a stage, by step.
  std::map<int64_t, double> validations(const std::string& stage) const {
    std::map<int64_t, double> out;
    std::istringstream lines(read_text(in_run(stage + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) {
      const formats::Json json = formats::parse_json(line, "metrics");
      if (json.contains("validation"))
        out[json["step"]] = json["validation"].at("bits_per_byte").get<double>();
    }
    return out;
  }
};

}  // namespace

TEST_F(BestCheckpoint, IsTheStagesModel) {
  const std::vector<std::string> alone, divided = {"parallel.ranks=2", "parallel.shard=parameters"};
  for (std::vector<std::string> sets : {alone, divided}) {
    std::filesystem::remove_all(in_run("tuned"));
    std::filesystem::remove_all(in_run("gguf"));
    run(recipe(kRecipe, sets));
    ASSERT_EQ(code_, ExitCode::kDone);
    const auto figures = validations("tuned");
    const auto best = std::ranges::min_element(figures, {}, [](const auto& one) { return one.second; });
    ASSERT_NE(best->first, figures.rbegin()->first)
        << "this rate must be too high for the test to say anything";
    EXPECT_EQ(figure("tuned", "bits_per_byte"), best->second);
    EXPECT_EQ(figure("gguf", "bits_per_byte"), best->second);
    EXPECT_EQ(figure("tuned", "steps"), figures.rbegin()->first);
    EXPECT_THAT(run(recipe(kRecipe, sets)), HasSubstr("done already"));
  }
}

TEST_F(BestCheckpoint, NeedsAValidationText) {
  for (const char* set : {"data.validation=''", "train.validate_every=0"}) {
    try {
      recipe(kRecipe, {set});
      ADD_FAILURE() << set;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("train."));
    }
  }
}

}  // namespace retort::recipes
