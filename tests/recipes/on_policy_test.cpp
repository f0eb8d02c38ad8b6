// A student that learns from its own answers: the same weights after an interruption and on any ranks, and
// what is refused.
#include <fmt/format.h>

#include "data/prepare.h"
#include "tests/recipes/prompted_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, sequence: 48, batch_tokens: 384, micro_batch: 2, packing: best_fit }
model: { context: 48, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 6, precision: fp32, log_every: 1, checkpoint_every: 3, keep_checkpoints: 9, optimizer: { lr: 4.0e-3 },
         schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0, prompt: [p], response: r } }
  - { name: teacher, kind: train }
  - name: student
    kind: train
    distill:
      teacher: { model: stage:teacher, precision: fp32 }
      losses: [ { fn: reverse_kl } ]
      on_policy: { share: 0.5, tokens: 6 }
)";

class OnPolicyStage : public PromptedRun {
 protected:
  Recipe on(const std::string& run, std::vector<std::string> sets = {}) const {
    sets.push_back("run.dir=" + (directory_ / run).string());
    sets.push_back("run.text=" + (directory_ / "a.jsonl").string());
    return recipe(kRecipe, sets);
  }
  std::vector<formats::Json> metrics(const std::string& run) const {
    std::vector<formats::Json> out;
    std::ifstream lines(directory_ / run / "student" / "metrics.jsonl");
    for (std::string line; std::getline(lines, line);) out.push_back(formats::Json::parse(line));
    return out;
  }
};

}  // namespace

TEST_F(OnPolicyStage, WeightsAreTheSameOnAnyRanksAndAfterAnInterruption) {
  run(on("one"));
  ASSERT_EQ(code_, ExitCode::kDone);
  for (const int ranks : {2, 4}) {
    const std::string name = fmt::format("on{}", ranks);
    run(on(name, {fmt::format("parallel.ranks={}", ranks)}));
    EXPECT_EQ(weights_digest("student", "one"), weights_digest("student", name)) << ranks;
  }
  run(on("cut", {"stages.student.train.steps=3"}));
  run(on("cut"));
  EXPECT_EQ(weights_digest("student", "one"), weights_digest("student", "cut"));
}

TEST_F(OnPolicyStage, MetricsSayWhatWasSampled) {
  run(on("one"));
  int sampled = 0, given = 0;
  for (const formats::Json& line : metrics("one")) {
    if (!line.contains("sampled")) continue;
    if (line.at("sampled") == 1.0) {
      ++sampled;
      EXPECT_GT(line.at("answer_tokens"), 0.0);
      EXPECT_LE(line.at("answer_tokens"), 6.0);
      EXPECT_LE(line.at("cut_short"), 1.0);
    } else {
      ++given;
      EXPECT_EQ(line.at("sampled"), 0.0);
      EXPECT_TRUE(line.at("answer_tokens").is_null());
    }
  }
  EXPECT_GT(sampled, 0);
  EXPECT_GT(given, 0);
}

TEST_F(OnPolicyStage, WhatCannotBeIsRefused) {
  const auto refused = [&](const std::vector<std::string>& sets) {
    try {
      on("run", sets);
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const auto error = [&](const std::string& set) { return refused({set}); };
  EXPECT_THAT(error("stages.student.distill.teacher.kind=cached"),
              HasSubstr("needs a teacher that reads the student's own"));
  EXPECT_THAT(error("stages.student.distill.losses=[{fn: cross_entropy}]"),
              HasSubstr("needs a loss with a teacher"));
  EXPECT_THAT(error("stages.student.data.packing=wrapped"),
              HasSubstr("must be at least 1 where rows join documents"));
  const std::string prompt = "stages.student.distill.on_policy.prompt=";
  EXPECT_EQ(error(prompt + "47"), "no error");
  EXPECT_THAT(error(prompt + "48"), HasSubstr("on_policy.prompt: must be less than the model's context 48"));
  EXPECT_THAT(error(prompt + "49"), HasSubstr("on_policy.prompt: must be at most a row's data.sequence 48"));
  const std::vector<std::string> plain = {"stages.text.prepare.prompt=[]",
                                          "stages.text.prepare.response=\"\""};
  EXPECT_THAT(refused(plain),
              HasSubstr("student.distill.on_policy.prompt: must be at least 1: stage:text does not say"));
  EXPECT_EQ(refused({plain[0], plain[1], prompt + "4"}), "no error");
}

// Shards that are there already are known by what they say of themselves.
TEST_F(OnPolicyStage, KnowsPromptsOutsideTheRun) {
  run(on("one", {"stages.student.train.steps=1"}));
  const auto refused = [&](const std::string& text) {
    try {
      on("run", {"stages.student.data.train=" + text});
    } catch (const ConfigError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  const std::string masked = (directory_ / "one/text").string(), plain = (directory_ / "plain").string();
  EXPECT_EQ(refused(masked), "no error");
  data::PrepareOptions options{.text = {(directory_ / "a.txt").string()}, .validation = 0};
  Log quiet(stderr, "", true);
  data::prepare(options, plain, 48, local_files(), quiet);
  EXPECT_THAT(refused(plain), HasSubstr("must be at least 1: " + plain + " does not say"));
}

}  // namespace retort::recipes
