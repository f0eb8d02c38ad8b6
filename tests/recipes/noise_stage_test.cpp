// Train stages with train.neftune: where the noise goes, where it does not, and where it is refused.
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 32, batch_tokens: 256, micro_batch: 2 }
model: { context: 32, layers: 2, width: 32, heads: 4, kv_heads: 2, ffn_width: 64 }
train: { steps: 8, precision: fp32, log_every: 1, validate_every: 4, checkpoint_every: 4,
         optimizer: { lr: 3.0e-3 }, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: base, kind: train }
  - { name: tuned, kind: train, model: { from: stage:base }, train: { neftune: 15 } }
)";

class NoiseStage : public RecipeRun {
 protected:
  Recipe recipe(const std::vector<std::string>& sets = {}, const std::string& more = "") const {
    return RecipeRun::recipe(kRecipe + more, sets);
  }
  std::string in(const std::string& run) const { return "run.dir=" + (directory_ / run).string(); }
  std::string refusal(const std::vector<std::string>& sets, const std::string& more = "") {
    try {
      return error_of(recipe(sets, more));
    } catch (const ConfigError& error) {  // already where it is read
      return error.what();
    }
  }
};

}  // namespace

// Its figures, those while it trains too, are those of the model without noise.
TEST_F(NoiseStage, ScoresWithoutNoise) {
  run(recipe({},
             "  - { name: score, kind: evaluate, model: { from: stage:tuned }, evaluate: { tasks: "
             "[bits_per_byte] } }\n"));
  ASSERT_EQ(code_, ExitCode::kDone);
  EXPECT_EQ(figure("tuned", "bits_per_byte"), figure("score", "bits_per_byte"));
  std::ifstream file(in_run("tuned/metrics.jsonl"));
  std::vector<double> validated;
  for (std::string line; std::getline(file, line);)
    if (const formats::Json json = formats::Json::parse(line); json.contains("validation"))
      validated.push_back(json.at("validation").at("bits_per_byte").get<double>());
  ASSERT_EQ(validated.size(), 2u);
  EXPECT_EQ(validated.back(), figure("score", "bits_per_byte"));
}

TEST_F(NoiseStage, HasTheSameBitsOnRanksAndContinued) {
  run(recipe());
  const std::string noisy = weights_digest("tuned");
  for (const char* ranks : {"2", "4"}) {
    run(recipe({in(ranks), std::string("parallel.ranks=") + ranks}));
    EXPECT_EQ(weights_digest("tuned", ranks), noisy) << ranks;
  }
  std::filesystem::remove_all(train::list_checkpoints(in_run("tuned/checkpoints")).front());
  std::filesystem::remove(in_run("tuned/result.json"));
  run(recipe());
  EXPECT_EQ(weights_digest("tuned"), noisy);

  const auto bits_of = [&](const char* name, std::vector<std::string> sets) {
    sets.push_back(in(name));
    run(recipe(sets));
    return weights_digest("tuned", name);
  };
  EXPECT_NE(bits_of("none", {"stages.tuned.train.neftune=0"}), noisy);
  EXPECT_NE(bits_of("less", {"stages.tuned.train.neftune=14"}), noisy);
}

// The student hears it where it is distilled, and over adapters.
TEST_F(NoiseStage, ReachesStudentsAndAdapters) {
  for (const std::string way : {"distill: { teacher: { model: stage:base }, losses: [{ fn: forward_kl }] }",
                                "adapters: { rank: 2 }"}) {
    const std::string stage = "  - { name: other, kind: train, model: { from: stage:base }, " + way + " }\n";
    std::vector<std::string> digests;
    for (const char* alpha : {"0", "5"}) {
      std::filesystem::remove_all(directory_ / "way");
      run(recipe({in("way"), std::string("stages.other.train.neftune=") + alpha}, stage));
      digests.push_back(weights_digest("other", "way"));
    }
    EXPECT_NE(digests[0], digests[1]) << way;
  }
}

TEST_F(NoiseStage, IsRefusedByName) {
  EXPECT_THAT(refusal({"stages.tuned.preference.loss=dpo", "stages.tuned.data.train=stage:text"}),
              HasSubstr("train.neftune: is not for preference"));
  EXPECT_THAT(refusal({},
                      "  - { name: on, kind: train, model: { from: stage:base }, train: { neftune: 5 }, "
                      "distill: { teacher: { model: stage:base }, losses: [{ fn: forward_kl }], "
                      "on_policy: { share: 0.5, prompt: 4 } } }\n"),
              HasSubstr("train.neftune: is not for on_policy"));
  for (const std::string family : {"spacebyte", "stlm"})
    EXPECT_THAT(refusal({"stages.base.model.family=" + family, "stages.base.train.neftune=5",
                         "stages.base.model.patch.longest=" + std::string(family == "stlm" ? "6" : "0")}),
                HasSubstr("train.neftune: is not for byte-patch models, got " + family));
  EXPECT_THROW(recipe({"train.neftune=-1"}), ConfigError);
}

}  // namespace retort::recipes
