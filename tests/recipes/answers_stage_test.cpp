// A teacher's answers as a text to learn from: what is given and what is learned, after an interruption too, and refusals.
#include <fmt/format.h>

#include "data/token_shards.h"
#include "tests/recipes/prompted_run.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

constexpr const char* kRecipe = R"(
run: { seed: 1, threads: 1 }
data: { train: stage:text, sequence: 256, batch_tokens: 2048, micro_batch: 2, packing: best_fit }
model: { context: 256, layers: 1, width: 32, heads: 2, ffn_width: 64 }
train: { steps: 4, precision: fp32, schedule: { kind: constant, warmup: 0 } }
stages:
  - { name: text, kind: prepare, prepare: { validation: 0, prompt: [p], response: r } }
  - { name: teacher, kind: train }
  - { name: own, kind: answers, model: { from: stage:teacher }, answers: { tokens: 6, shard_tokens: 900, precision: fp32 } }
  - { name: student, kind: train, data: { train: stage:own } }
)";

class AnswersStage : public PromptedRun {
 protected:
  Recipe with(std::vector<std::string> sets = {}, const std::string& yaml = kRecipe) const {
    sets.push_back("run.text=" + (directory_ / "a.jsonl").string());
    return recipe(yaml, sets);
  }
  struct Document {
    std::string prompt, answer;
    auto operator<=>(const Document&) const = default;
  };
  // Of bytes.
  std::vector<Document> documents(const std::string& shards) const {
    const data::TokenShards text(in_run(shards));
    std::vector<Document> out;
    for (int64_t begin = 0; begin < text.size(); begin = text.document_end(begin)) {
      const auto size = static_cast<size_t>(text.document_end(begin) - begin);
      std::vector<int64_t> ids(size);
      std::vector<uint8_t> mask(size);
      text.read(begin, ids);
      text.read_loss_mask(begin, mask);
      Document& one = out.emplace_back();
      for (size_t i = 0; i < size; ++i)
        (mask[i] == data::kRead ? one.prompt : one.answer) += static_cast<char>(ids[i]);
    }
    return out;
  }
  std::map<std::string, std::string> shards(const std::string& directory) const {
    std::map<std::string, std::string> out;
    for (const auto& file : std::filesystem::directory_iterator(in_run(directory)))
      out[file.path().filename()] = read_text(file.path());
    return out;
  }
};

}  // namespace

TEST_F(AnswersStage, PromptsAreTheTextsAndAnswersTheModels) {
  run(with());
  ASSERT_EQ(code_, ExitCode::kDone);
  std::vector<Document> given = documents("text/train"), own = documents("own/train");
  ASSERT_EQ(given.size(), 60u);
  ASSERT_EQ(own.size(), 60u);
  int64_t learned = 0, differ = 0;
  const auto by_prompt = [](const Document& a, const Document& b) { return a.prompt < b.prompt; };
  std::ranges::sort(given, by_prompt);
  std::ranges::sort(own, by_prompt);
  for (size_t i = 0; i < own.size(); ++i) {
    EXPECT_EQ(own[i].prompt, given[i].prompt);
    EXPECT_GE(own[i].answer.size(), 1u);
    EXPECT_LE(own[i].answer.size(), 6u);
    learned += std::ssize(own[i].answer);
    differ += own[i].answer != given[i].answer;
  }
  EXPECT_GT(differ, 50);
  EXPECT_EQ(figure("own", "answers"), 60);
  EXPECT_EQ(figure("own", "answer_tokens"), static_cast<double>(learned));
  EXPECT_GT(figure("student", "final_loss"), 0.0);
}

TEST_F(AnswersStage, AnInterruptedStageEndsWithTheSameBytes) {
  run(with());
  const auto whole = shards("own/train");
  ASSERT_GE(whole.size(), 3u);
  const std::string last = whole.rbegin()->first;
  // As a killed process leaves it: full shards beside the place.
  std::filesystem::rename(in_run("own/train"), in_run("own/train.tmp"));
  std::filesystem::remove(in_run("own/train.tmp") / last);
  std::filesystem::remove(in_run("own/result.json"));
  run(with());
  EXPECT_EQ(shards("own/train"), whole);
}

TEST_F(AnswersStage, AnyTextHasPromptsOfALength) {
  const std::vector<std::string> sets = {"data.packing=wrapped", "stages.own.answers.prompt=5",
                                         "stages.own.answers.documents=30"};
  run(with(sets));
  const std::vector<Document> own = documents("own/train");
  ASSERT_EQ(own.size(), 30u);
  for (const Document& one : own) EXPECT_EQ(one.prompt.size(), 5u);
}

TEST_F(AnswersStage, WhatCannotBeIsRefused) {
  const auto refused = [&](const std::vector<std::string>& sets) {
    try {
      with(sets);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(refused({"data.packing=wrapped"}), HasSubstr("answers.prompt: must be at least 1"));
  EXPECT_THAT(refused({"stages.text.prepare.prompt=[]", "stages.text.prepare.response=\"\""}),
              HasSubstr("own.answers.prompt: must be at least 1: stage:text does not say"));
  EXPECT_THAT(refused({"stages.own.answers.prompt=256"}),
              HasSubstr("must be less than the model's context 256"));
  EXPECT_THAT(refused({"stages.student.data.validation=stage:own"}),
              HasSubstr("needs a validation part, and a stage of kind answers makes none"));
  EXPECT_THAT(refused({"stages.student.model.vocabulary=100"}), HasSubstr("must be at least 256"));
}

}  // namespace retort::recipes
