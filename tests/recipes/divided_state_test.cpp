// parallel.shard moves memory between ranks and not a bit of what comes out: every combination of how weights are
// made, how they are shared and what they learn from.
#include <fmt/ranges.h>

#include "models/family.h"
#include "tests/recipes/process.h"
#include "tests/recipes/recipe_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

struct Choice {
  std::string name, yaml;  // keys of a stage
};

const std::vector<Choice> kWeights = {
    {"f32", "train: { precision: fp32 }"},
    {"bf16", "train: { precision: bf16 }"},
    {"fixed", "train: { precision: fp32 }, quantize: {}"},
    {"learned", "train: { precision: bf16 }, quantize: { weights: { grid: lsq4 }, from_step: 1 }"},
    {"tensor", "train: { precision: fp32 }, quantize: { weights: { grid: nvfp4 } }"},
};
const std::vector<Choice> kSharing = {
    {"tied", "tie_embeddings: true"},  {"ffn", "share: { ffn: all }"},
    {"repeat", "repeat: 2"},           {"low_rank", "share: { ffn: all, lora_rank: 4 }"},
    {"frozen", "from: stage:teacher"},  // under adapters
};
const std::vector<Choice> kLosses = {
    {"labels", ""},
    {"live",
     ", distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl } ] }"},
    {"cached", ", distill: { teacher: { kind: cached, cache: stage:labels }, losses: [ { fn: sampled } ] }"},
    {"hidden",
     ", distill: { teacher: { model: stage:teacher, precision: fp32 }, losses: [ { fn: forward_kl }, { fn: "
     "hidden_mse } ] }"},
};

constexpr const char* kShards[] = {"optimizer", "gradients", "parameters"};

// Matrices of several blocks (models/placement.h), so that ranks divide them too.
constexpr const char* kHead = R"(
run: { seed: 3, threads: 1 }
data: { train: stage:text, sequence: 16, batch_tokens: 192, micro_batch: 1 }
model: { context: 16, layers: 2, width: 64, heads: 2, ffn_width: 1024 }
train: { steps: 3, checkpoint_every: 2, keep_checkpoints: 2, optimizer: { lr: 3.0e-3 }, schedule: { warmup: 0 } }
stages:
  - { name: text, kind: prepare }
  - { name: teacher, kind: train, model: { width: 96, ffn_width: 512 }, train: { steps: 2, precision: fp32 } }
  - { name: labels, kind: capture, model: { from: stage:teacher }, capture: { draws: 8, precision: fp32 } }
)";

// Models of other software's kinds and of ours, made from the teacher.
constexpr const char* kOnDisk = R"(
  - { name: hf, kind: export, model: { from: stage:teacher }, export: { format: hf, type: bf16 } }
  - { name: gguf, kind: export, model: { from: stage:teacher }, export: { type: q8_0 } }
  - { name: grid, kind: train, model: { from: stage:teacher }, quantize: { weights: { grid: lsq4 } } }
  - { name: tuned, kind: train, model: { from: stage:teacher }, adapters: { rank: 4, dora: true } }
  - { name: peft, kind: export, model: { from: stage:tuned }, export: { format: peft } }
)";

struct Combination {
  size_t weights, sharing, losses;
  std::string name() const {
    return kWeights[weights].name + "-" + kSharing[sharing].name + "-" + kLosses[losses].name;
  }
  // A weight that is merged with its adapter lies on no grid, so grids exclude adapters.
  bool possible() const { return weights < 2 || sharing < 3; }
  // Some with a validation text, whose figures are of f32 values.
  std::string yaml(const std::string& parallel) const {
    const bool frozen = kSharing[sharing].name == "frozen", judged = (weights + sharing + losses) % 4 == 1;
    return fmt::format("  - {{ name: {}, kind: train, {}, model: {{ {} }}{}{}{}{} }}\n", name(),
                       kWeights[weights].yaml, kSharing[sharing].yaml,
                       frozen ? ", adapters: { rank: 4, dora: true }" : "", kLosses[losses].yaml,
                       judged ? ", data: { validation: stage:text }" : "", parallel);
  }
};

std::vector<Combination> all() {
  std::vector<Combination> out;
  for (size_t w = 0; w < kWeights.size(); ++w)
    for (size_t s = 0; s < kSharing.size(); ++s)
      for (size_t l = 0; l < kLosses.size(); ++l)
        if (const Combination one{w, s, l}; one.possible()) out.push_back(one);
  return out;
}

// Every two choices meet.
std::vector<Combination> pairwise() {
  std::vector<Combination> out = all();
  std::erase_if(out,
                [](const Combination& c) { return c.losses != (c.weights + c.sharing) % kLosses.size(); });
  return out;
}

std::string recipe_of(const std::vector<Combination>& combinations,
                      const std::function<std::string(size_t)>& parallel = {}) {
  std::string out = kHead;
  for (size_t i = 0; i < combinations.size(); ++i)
    out += combinations[i].yaml(parallel ? ", parallel: { " + parallel(i) + " }" : "");
  return out;
}

class DividedState : public RecipeRun {
 protected:
  void run_as(const std::string& name, const std::string& yaml, std::vector<std::string> sets = {}) {
    sets.push_back("run.dir=" + (directory_ / name).string());
    said_ = run(recipe(yaml, sets));
    ASSERT_EQ(code_, ExitCode::kDone) << said_;
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
  void expect_equal(const std::string& a, const std::string& b,
                    const std::vector<Combination>& combinations) const {
    for (const Combination& c : combinations) {
      const auto first = files(a, c.name()), second = files(b, c.name());
      EXPECT_GE(first.size(), 9u) << "two checkpoints of four files, LATEST";
      ASSERT_EQ(first.size(), second.size()) << c.name();
      for (const auto& [name, bytes] : first) {
        ASSERT_TRUE(second.contains(name)) << c.name() << "/" << name;
        EXPECT_TRUE(second.at(name) == bytes) << b << "/" << c.name() << "/" << name;
      }
      for (const char* figure : {"bits_per_byte", "final_loss"})
        EXPECT_EQ(figure_of(a, c.name(), figure), figure_of(b, c.name(), figure)) << b << "/" << c.name();
    }
  }
  formats::Json figure_of(const std::string& run, const std::string& stage, const char* name) const {
    return read_result(directory_ / run, stage)->value(name, formats::Json());
  }
  // Under each policy, one of them in two groups.
  void under_mpirun(const std::vector<Combination>& combinations) {
    if (!testing::has_mpirun()) GTEST_SKIP() << "no mpirun";
    const std::string yaml = recipe_of(combinations);
    run_as("one", yaml);
    std::ofstream(directory_ / "recipe.yaml") << yaml;
    for (const std::string shard : kShards) {
      std::vector<std::string> command = testing::mpirun(4);
      for (const std::string& word :
           {testing::binary().string(), std::string("run"), (directory_ / "recipe.yaml").string(),
            "run.text=" + (directory_ / "a.txt").string(), "run.dir=" + (directory_ / shard).string(),
            "parallel.shard=" + shard, fmt::format("parallel.replicas={}", shard == "gradients" ? 2 : 1)})
        command.push_back(word);
      testing::Process process(command, directory_ / "mpirun");
      ASSERT_EQ(process.wait(), 0) << read_text(directory_ / "mpirun.err");
      expect_equal("one", shard, combinations);
      std::filesystem::remove_all(directory_ / shard);
    }
  }
  std::string said_;
};
using SlowDividedState = DividedState;

}  // namespace

// Each combination on 2, 3 or 4 ranks, under each policy; some of the four are two groups.
TEST_F(DividedState, Fault30CheckpointsHaveTheBytesOfOneRank) {
  const std::vector<Combination> combinations = pairwise();
  ASSERT_EQ(combinations.size(), 19u);
  run_as("one", recipe_of(combinations));
  for (const size_t turn : {0, 1, 2}) {
    const std::string name = "divided" + std::to_string(turn);
    run_as(name, recipe_of(combinations, [&](size_t i) {
             const size_t ranks = 2 + (i + turn) % 3;
             return fmt::format("ranks: {}, shard: {}, replicas: {}", ranks, kShards[(i / 3 + turn) % 3],
                                ranks == 4 && i % 2 == 0 ? 2 : 1);
           }));
    expect_equal("one", name, combinations);
  }
}

TEST_F(SlowDividedState, EveryCombinationOnAnyNumberOfRanks) {
  const std::vector<Combination> combinations = all();
  ASSERT_EQ(combinations.size(), 76u);
  run_as("one", recipe_of(combinations));
  for (const char* shard : kShards)
    for (const auto& [ranks, replicas] :
         std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {3, 1}, {4, 1}, {4, 2}}) {
      const std::string name = fmt::format("{}{}in{}", shard, ranks, replicas);
      run_as(name, recipe_of(combinations),
             {fmt::format("parallel.ranks={}", ranks), fmt::format("parallel.shard={}", shard),
              fmt::format("parallel.replicas={}", replicas)});
      expect_equal("one", name, combinations);
      std::filesystem::remove_all(directory_ / name);
    }
}

// A run continues on another number of ranks, divided or not.
TEST_F(DividedState, Fault28ARunGoesOnWithOtherRanksUnderAnotherPolicy) {
  const std::vector<Combination> combinations = {{1, 0, 1}, {3, 1, 0}, {0, 4, 2}, {1, 2, 3}};
  const std::string yaml = recipe_of(combinations);
  run_as("one", yaml);
  run_as("run", yaml, {"parallel.ranks=3", "parallel.shard=gradients"});
  const std::vector<std::pair<int, std::string>> others = {{2, "optimizer"}, {4, "none"},
                                                           {2, "gradients"}, {3, "parameters"},
                                                           {4, "gradients"}, {2, "parameters"}};
  for (const auto& [ranks, shard] : others) {
    for (const Combination& c : combinations) {
      std::filesystem::remove(in_run(c.name() + "/result.json"));
      std::filesystem::remove_all(in_run(c.name() + "/checkpoints/step_00000003"));
    }
    run_as("run", yaml,
           {fmt::format("parallel.ranks={}", ranks), "parallel.shard=" + shard,
            ranks == 2 ? "train.save=sync" : "train.save=async"});
    EXPECT_THAT(said_, HasSubstr("continuing from"));
    expect_equal("one", "run", combinations);
  }
}

// Processes instead of threads.
TEST_F(DividedState, FourProcessesUnderMpirun) { under_mpirun(pairwise()); }
TEST_F(SlowDividedState, EveryCombinationInFourProcessesUnderMpirun) { under_mpirun(all()); }

// Norms after sums, of heads and before last products, biases and learned positions; a base in codes.
TEST_F(DividedState, EveryFamilyDividesItsParameters) {
  std::vector<std::string> names;
  std::string yaml = kHead;
  for (const models::Family& family : models::families()) {
    if (family.make) continue;  // byte-patch models
    names.push_back(family.name);
    yaml += fmt::format(
        "  - {{ name: {0}, kind: train, train: {{ precision: bf16 }}, model: {{ family: {0} }} }}\n",
        family.name);
  }
  names.emplace_back("codes");
  yaml +=
      "  - { name: codes, kind: train, model: { from: stage:teacher }, adapters: { rank: 4, base: q8_0 } }\n";
  run_as("one", yaml);
  run_as("three", yaml, {"parallel.ranks=3", "parallel.shard=parameters"});
  for (const std::string& name : names) EXPECT_EQ(files("three", name), files("one", name)) << name;
}

// Weights from disk, of which a rank reads what it has rows of: files of other software and checkpoints, with and without
// grids and adapters; and a teacher that the stage itself begins as.
TEST_F(DividedState, ModelsFromDiskStartDivided) {
  const std::vector<Choice> stages = {
      {"of_hf", "from: stage:hf }, train: { precision: bf16"},
      {"of_gguf", "from: stage:gguf }, train: { precision: fp32"},
      {"of_grid", "from: stage:grid }, train: { precision: fp32"},
      {"same_grid", "from: stage:grid }, quantize: { weights: { grid: lsq4 }"},
      {"other_grid", "from: stage:grid }, quantize: { weights: { grid: nvfp4 }"},
      {"merged", "from: stage:tuned }, train: { precision: fp32"},
      {"continued", "from: stage:tuned }, adapters: { rank: 4, dora: true"},
      {"over_grid", "from: stage:grid }, adapters: { rank: 4, dora: true"},
      {"over_codes", "from: stage:hf }, adapters: { rank: 4, dora: true, base: q8_0"},
      {"of_peft", "from: stage:peft }, train: { precision: fp32"},
      {"own_teacher",
       "from: stage:hf }, quantize: { weights: { grid: lsq4 } }, distill: { teacher: { kind: self, "
       "precision: "
       "bf16 }, losses: [ { fn: forward_kl } ]"}};
  std::string yaml = std::string(kHead) + kOnDisk;
  for (const Choice& stage : stages)
    yaml += fmt::format("  - {{ name: {}, kind: train, model: {{ {} }} }}\n", stage.name, stage.yaml);
  run_as("one", yaml);
  run_as("three", yaml, {"parallel.ranks=3", "parallel.shard=parameters"});
  run_as("four", yaml, {"parallel.ranks=4", "parallel.shard=parameters", "parallel.replicas=2"});
  for (const Choice& stage : stages)
    for (const char* name : {"three", "four"})
      EXPECT_EQ(files(name, stage.name), files("one", stage.name)) << name << "/" << stage.name;
}

// A rank reads the rows of them that it keeps; one of tokens teaches bytes, too.
TEST_F(DividedState, TeachersFromDiskAreDivided) {
  const std::vector<Choice> teachers = {{"hf", "model: stage:hf, precision: bf16"},
                                        {"gguf", "model: stage:gguf, precision: fp32"},
                                        {"grid", "model: stage:grid, precision: bf16"},
                                        {"tuned", "model: stage:tuned, precision: fp32"},
                                        {"peft", "model: stage:peft, precision: fp32"},
                                        {"bpe", "model: stage:bpe, precision: fp32, bridge: bytes"}};
  std::string yaml = std::string(kHead) + kOnDisk + R"(
  - { name: words, kind: tokenizer, tokenizer: { vocabulary: 280 } }
  - { name: tokens, kind: prepare, prepare: { tokenizer: stage:words } }
  - { name: bpe, kind: train, model: { vocabulary: 280, context: 48 }, data: { train: stage:tokens }, train: { steps: 1 } }
)";
  for (const Choice& teacher : teachers)
    yaml += fmt::format(
        "  - {{ name: of_{}, kind: train, distill: {{ teacher: {{ {} }}, losses: [ {{ fn: forward_kl }} ] }} "
        "}}\n",
        teacher.name, teacher.yaml);
  run_as("one", yaml);
  run_as("three", yaml, {"parallel.ranks=3", "parallel.shard=parameters"});
  run_as("four", yaml, {"parallel.ranks=4", "parallel.shard=parameters", "parallel.replicas=2"});
  for (const Choice& teacher : teachers)
    for (const char* name : {"three", "four"})
      EXPECT_EQ(files(name, "of_" + teacher.name), files("one", "of_" + teacher.name))
          << name << " " << teacher.name;
}

TEST_F(DividedState, WhatCannotDivideItsParametersIsRefused) {
  const auto refused = [&](const std::string& yaml, const std::vector<std::string>& sets) {
    return refusal_of(yaml, sets);
  };
  const auto refusal = [&](const std::string& stage) {
    return refused(kHead + stage, {"parallel.shard=parameters"});
  };
  EXPECT_THAT(refusal("  - { name: bytes, kind: train, model: { family: spacebyte, vocabulary: 256 } }\n"),
              HasSubstr("parallel.shard: parameters is not for byte-patch models, got spacebyte"));
  EXPECT_THAT(refusal("  - { name: own, kind: train, distill: { teacher: { model: stage:teacher }, losses: [ "
                      "{ fn: forward_kl } ], on_policy: { share: 0.5, prompt: 4 } } }\n"),
              HasSubstr("parallel.shard: parameters excludes on_policy"));
  const auto groups = [&](const std::string& ranks, const std::string& shard) {
    return refused(recipe_of({{0, 0, 0}}),
                   {"parallel.ranks=" + ranks, "parallel.shard=" + shard, "parallel.replicas=2"});
  };
  EXPECT_THAT(groups("3", "optimizer"), HasSubstr("parallel.replicas: must divide the 3 rank(s), got 2"));
  EXPECT_THAT(groups("4", "none"), HasSubstr("parallel.replicas: is for ranks that divide something"));
}

TEST_F(DividedState, WhatNoRankDividesIsRefused) {
  for (const char* shard : {"parameter", "gradient"})
    EXPECT_THAT(
        [&] {
          recipe(recipe_of({{0, 0, 0}}), {std::string("parallel.shard=") + shard});
        },
        ::testing::ThrowsMessage<ConfigError>(::testing::AllOf(
            HasSubstr("parallel.shard"), HasSubstr("none, optimizer, gradients, parameters"))))
        << shard;
}

}  // namespace retort::recipes
