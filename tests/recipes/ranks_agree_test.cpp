#include "recipes/ranks_agree.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/artifacts/tiny.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

constexpr const char* kRecipe = R"(
run: { seed: 1 }
data: { train: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 4 }
model: { context: 32, layers: 1, width: 32, heads: 2, ffn_width: 64 }
stages:
  - { name: text, kind: prepare }
  - { name: model, kind: train }
)";

using RanksAgree = RecipeRun;

}  // namespace

// Whatever is written in a recipe counts, but for the threads of this process.
TEST_F(RanksAgree, EveryKeyIsAFact) {
  const comm::Facts facts = recipe_facts(recipe(kRecipe));
  EXPECT_EQ(facts.at("run.seed"), "1");
  EXPECT_EQ(facts.at("stages.model.train.steps"), "1000");
  EXPECT_EQ(facts.at("run.text[0]"), (directory_ / "a.txt").string());
  for (const char* set : {"stages.model.train.optimizer.weight_decay=0.3", "run.seed=2", "data.sequence=16",
                          "stages.model.train.log_every=7", "run.dir=elsewhere"})
    EXPECT_NE(recipe_facts(recipe(kRecipe, {set})), facts) << set;
  EXPECT_EQ(recipe_facts(recipe(kRecipe, {"run.threads=3"})), facts);
}

// By what they hold, not by name or time.
TEST_F(RanksAgree, InputsAreWhatTheyHold) {
  const auto text = [&](const std::string& content) {
    std::ofstream(directory_ / "a.txt") << content;
    const Recipe r = recipe(kRecipe);
    return input_facts(r, r.stages[0]);
  };
  const comm::Facts one = text("some text"), same = text("some text"), other = text("some test");
  EXPECT_EQ(one, same);
  EXPECT_NE(one, other);
  EXPECT_TRUE(one.contains(fmt::format("run.text ({})", (directory_ / "a.txt").string())));
}

TEST_F(RanksAgree, AModelFolderIsSampledThroughout) {
  artifacts::save_tiny(*artifacts::tiny_model(1), directory_ / "model", 1, std::nullopt);
  const Recipe r = recipe(kRecipe, {"stages.model.model.from=" + (directory_ / "model").string()});
  const auto facts = [&] {
    const comm::Facts all = input_facts(r, r.stages[1]);
    return all.at(fmt::format("model.from ({})", (directory_ / "model").string()));
  };
  const std::string before = facts();
  std::ofstream(directory_ / "model" / ".downloaded") << "at noon";  // hidden: of no account
  EXPECT_EQ(facts(), before);
  artifacts::save_tiny(*artifacts::tiny_model(2), directory_ / "model", 1, std::nullopt);  // of the same size
  EXPECT_NE(facts(), before);
  std::filesystem::remove_all(directory_ / "model");
  EXPECT_THAT(facts(), ::testing::HasSubstr("missing at"));
}

}  // namespace retort::recipes
