// parallel.shard moves memory between ranks and not a bit of what comes out.
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

// Matrices of several blocks (models/placement.h), so that ranks divide them too.
constexpr const char* kRecipe = R"(
run: { seed: 3, threads: 1 }
data: { train: stage:text, validation: stage:text, sequence: 16, batch_tokens: 192, micro_batch: 1 }
model: { context: 16, layers: 2, width: 128, heads: 2, ffn_width: 512 }
train: { steps: 4, precision: fp32, checkpoint_every: 2, keep_checkpoints: 2, optimizer: { lr: 3.0e-3 }, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train }
  - { name: labels, kind: capture, model: { from: stage:teacher }, capture: { draws: 8, precision: fp32 } }
  - { name: bf16, kind: train, train: { precision: bf16 } }
  - { name: shared, kind: train, model: { tie_embeddings: true, share: { ffn: all, lora_rank: 4 } } }
  - { name: repeated, kind: train, model: { repeat: 2 } }
  - { name: fixed, kind: train, quantize: {}, model: { tie_embeddings: true } }
  - { name: learned, kind: train, quantize: { weights: { grid: lsq4 }, from_step: 1 }, model: { share: { ffn: all } } }
  - { name: tensor, kind: train, quantize: { weights: { grid: ternary } }, model: { layers: 1, width: 256 }, train: { precision: bf16 } }
  - { name: adapters, kind: train, model: { from: stage:teacher }, adapters: { rank: 4, dora: true } }
  - { name: live, kind: train, model: { width: 64 }, distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl } ] } }
  - { name: cached, kind: train, distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: sampled } ] } }
  - name: hidden
    kind: train
    model: { width: 64 }
    distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl }, { fn: hidden_mse } ] }
)";

class DividedState : public RecipeRun {
 protected:
  Recipe on(int ranks, const std::string& shard, const std::string& run) const {
    return recipe(kRecipe, {"run.dir=" + (directory_ / run).string(),
                            "parallel.ranks=" + std::to_string(ranks), "parallel.shard=" + shard});
  }
  std::vector<std::string> stages() const {
    std::vector<std::string> out;
    for (const Stage& stage : on(1, "none", "run").stages)
      if (stage.kind() == "train") out.push_back(stage.name);
    return out;
  }
  // Every file of every checkpoint of a stage, by its path below the stage.
  std::map<std::string, std::string> files(const std::string& run, const std::string& stage) const {
    std::map<std::string, std::string> out;
    const Path top = directory_ / run / stage / "checkpoints";
    for (const auto& file : std::filesystem::recursive_directory_iterator(top))
      if (file.is_regular_file())
        out[std::filesystem::relative(file.path(), top).string()] = read_text(file.path());
    return out;
  }
  void expect_equal(const std::string& a, const std::string& b, const std::string& stage) const {
    const auto first = files(a, stage), second = files(b, stage);
    ASSERT_EQ(first.size(), second.size());
    for (const auto& [name, bytes] : first) {
      ASSERT_TRUE(second.contains(name)) << stage << "/" << name;
      EXPECT_TRUE(second.at(name) == bytes) << stage << "/" << name;
    }
  }
};

}  // namespace

TEST_F(DividedState, CheckpointsHaveTheBytesOfOneRank) {
  run(on(1, "none", "one"));
  ASSERT_EQ(code_, ExitCode::kDone);
  for (const int ranks : {2, 3, 4}) {
    const std::string name = "on" + std::to_string(ranks);
    run(on(ranks, "optimizer", name));
    for (const std::string& stage : stages()) expect_equal("one", name, stage);
  }
}

// A run continues on another number of ranks, divided or not.
TEST_F(DividedState, ARunGoesOnDividedOrNot) {
  run(on(1, "none", "one"));
  run(on(3, "optimizer", "run"));
  const std::vector<std::pair<int, std::string>> others = {{2, "optimizer"}, {4, "none"}, {4, "optimizer"}};
  for (const auto& [ranks, shard] : others) {
    for (const std::string& stage : stages()) {
      std::filesystem::remove(in_run(stage + "/result.json"));
      std::filesystem::remove_all(in_run(stage + "/checkpoints/step_00000004"));
    }
    EXPECT_THAT(run(on(ranks, shard, "run")), HasSubstr("continuing from"));
    for (const std::string& stage : stages()) expect_equal("one", "run", stage);
  }
}

}  // namespace retort::recipes
