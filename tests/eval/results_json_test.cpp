// The layout; tests/recipes/described_tasks_test.cpp compares figures and their keys with the harness' own file.
#include "eval/results_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/sha256.h"

namespace retort::eval {
namespace {

using ::testing::HasSubstr;

TaskResult choices() {
  TaskResult task;
  task.spec.task = "t";
  task.spec.output_type = "multiple_choice";
  task.documents = 7;
  Prompt prompt;
  prompt.document = {{{"q", "\u00e9"}}, "file:1"};
  prompt.requests = {{"Q", " a"}, {"Q", " b"}};
  prompt.choices = {"a", "b"};
  prompt.gold = 1;
  prompt.target = "1";
  task.prompts = {prompt};
  task.answers = {{{-1.5, true}, {-2.25, false}}};
  task.metrics = {
      {.metric = "acc", .scores = {{0}}, .value = 0.0, .error = std::numeric_limits<double>::quiet_NaN()},
      {.metric = "mcc", .scores = {{1, 0}}, .value = 0.0, .error = 0.0}};
  return task;
}

}  // namespace

TEST(ResultsJson, FiguresGoByMetricAndFilter) {
  const formats::Json all = results_json({choices()}, {.model = "m", .limit = 1, .resamples = 10});
  const formats::Json& figures = all.at("results").at("t");
  EXPECT_EQ(figures.at("acc,none"), 0.0);
  EXPECT_EQ(figures.at("acc_stderr,none"), "N/A");
  EXPECT_EQ(figures.at("mcc_stderr,none"), 0.0);
  EXPECT_EQ(all.at("n-samples").at("t"), formats::Json({{"original", 7}, {"effective", 1}}));
  EXPECT_EQ(all.at("higher_is_better").at("t").at("acc"), true);
  EXPECT_EQ(all.at("config").at("limit"), 1);
  EXPECT_TRUE(all.at("chat_template").is_null());
  EXPECT_TRUE(results_json({}, {.limit = 0}).at("config").at("limit").is_null());
}

// Answers are texts as Python prints them; digests are those of Python's json.dumps(doc, indent=2, ensure_ascii=False).
TEST(ResultsJson, ALineForEachDocument) {
  const formats::Json line = formats::parse_json(sample_lines(choices()), "line");
  EXPECT_EQ(line.at("arguments").at("gen_args_1"), formats::Json({{"arg_0", "Q"}, {"arg_1", " b"}}));
  EXPECT_EQ(line.at("resps"), formats::Json::parse(R"([[["-1.5", "True"]], [["-2.25", "False"]]])"));
  EXPECT_EQ(line.at("filtered_resps"), formats::Json::parse(R"([["-1.5", "True"], ["-2.25", "False"]])"));
  EXPECT_EQ(line.at("target"), 1);
  EXPECT_EQ(line.at("metrics"), formats::Json({"acc", "mcc"}));
  EXPECT_EQ(line.at("acc"), 0.0);
  EXPECT_EQ(line.at("mcc"), formats::Json({1.0, 0.0}));
  EXPECT_EQ(line.at("doc_hash"), sha256("{\n  \"q\": \"\u00e9\"\n}"));
  EXPECT_EQ(line.at("prompt_hash"), sha256("Q"));
  EXPECT_EQ(line.at("target_hash"), sha256("1"));
}

TEST(ResultsJson, ALineForEachFilterOfWhatWasGenerated) {
  TaskResult task = choices();
  task.spec.output_type = "generate_until";
  task.prompts[0].requests = {{"Q", ""}};
  task.prompts[0].target = "3";
  task.generated = {"it is 3"};
  task.filtered = {{"last", {"3"}}, {"first", {"it"}}};
  task.metrics = {{.metric = "exact_match", .filter = "last", .scores = {{1}}, .value = 1.0},
                  {.metric = "exact_match", .filter = "first", .scores = {{0}}, .value = 0.0}};
  const std::string lines = sample_lines(task);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2);
  const formats::Json last = formats::parse_json(lines.substr(lines.find('\n') + 1), "line");
  EXPECT_EQ(last.at("filter"), "last");
  EXPECT_EQ(last.at("exact_match"), 1.0);
  EXPECT_EQ(last.at("filtered_resps"), formats::Json({"3"}));
  EXPECT_EQ(last.at("resps"), formats::Json::parse(R"([["it is 3"]])"));
  EXPECT_EQ(results_json({task}, {}).at("results").at("t").at("exact_match,first"), 0.0);
}

}  // namespace retort::eval
