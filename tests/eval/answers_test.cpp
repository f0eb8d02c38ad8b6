#include "eval/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "core/error.h"
#include "data/tokenizers/utf8.h"
#include "eval/generate.h"
#include "tests/eval/golden.h"
#include "tests/eval/models.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;

// GSM8K's.
AnswerFilter filter(const std::string& name) {
  FilterStep step;
  step.function = "regex";
  if (name == "flexible-extract") {
    step.regex_pattern = "(-?[$0-9.,]{2,})|(-?[0-9]+)";
    step.group_select = -1;
  }
  FilterStep first;
  first.function = "take_first";
  return AnswerFilter({name, {step, first}});
}

}  // namespace

TEST(Answers, FiltersAndComparisonAreTheHarness) {
  RETORT_NEEDS_TEST_DATA();
  MetricSpec spec;
  spec.regexes_to_ignore = {",", "\\$", "(?s).*#### ", "\\.$"};
  spec.ignore_case = true;
  const AnswerMatch match(spec);
  const auto cases = formats::read_json(testing::test_data() / "eval" / "gsm8k_filters.json");
  ASSERT_GE(cases.size(), 26u);
  for (const auto& one : cases)
    for (const char* name : {"strict-match", "flexible-extract"}) {
      const std::string answer = filter(name)(one.at("response").get<std::string>());
      EXPECT_EQ(answer, one.at(name).at("extracted").get<std::string>()) << one.at("response");
      EXPECT_EQ(match(answer, one.at("target").get<std::string>()),
                one.at(name).at("exact_match").get<double>() == 1.0)
          << one.at("response");
    }
}

TEST(Answers, WhatAComparisonMayIgnore) {
  MetricSpec spec;
  EXPECT_FALSE(AnswerMatch(spec)("\u00c9t\u00e9!", "\u00e9t\u00e9"));
  spec.ignore_case = spec.ignore_punctuation = spec.ignore_numbers = true;
  EXPECT_TRUE(AnswerMatch(spec)("\u00c9t\u00e9 1!", "\u00e9t\u00e9 "));
}

TEST(Answers, EndAtAStopTextWhicheverTokensWriteIt) {
  const testing::Threads one_thread(1);
  const auto model = make_decoder(256, 96);
  const auto tokenizer = data::make_byte_tokenizer();
  const RequestEncoder encoder(*tokenizer, 96);
  const auto comm = comm::make_self_comm();
  const std::vector<std::string> prompts = {"In the beginning", "a",
                                            "What is there in the end, and who knows?"};
  const auto answers = [&](const GenerationSpec& options, comm::Comm& on) {
    return generate_answers(*model, *tokenizer, encoder, prompts, options, {}, on);
  };
  GenerationSpec options;
  options.max_gen_toks = 30;
  const auto whole = answers(options, *comm);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto alone = generate(*model, {tokenizer->encode(prompts[i])}, {.tokens = 30})[0];
    std::string text = tokenizer->decode(alone.ids);
    data::check_utf8(text, "replace", "");
    EXPECT_EQ(whole[i], text);
  }
  size_t at = 12;  // a stop text is text: two letters of ASCII among bytes of all kinds
  while (static_cast<signed char>(whole[2].at(at)) < 0 || static_cast<signed char>(whole[2].at(at + 1)) < 0)
    ++at;
  options.until = {"never", whole[2].substr(at, 2)};
  EXPECT_EQ(answers(options, *comm)[2], whole[2].substr(0, whole[2].find(options.until[1])));
  std::mutex mutex;
  const auto stopped = answers(options, *comm);
  comm::run_thread_ranks(3, [&](comm::Comm& on) {
    const auto own = make_decoder(256, 96);
    const auto mine = generate_answers(*own, *tokenizer, encoder, prompts, options, {}, on);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(mine, stopped);
  });
}

// The beginning goes, so that 60 new tokens fit a window of 64.
TEST(Answers, LongPromptsLoseTheirBeginning) {
  const auto model = make_decoder(256, 64);
  const auto tokenizer = data::make_byte_tokenizer();
  const RequestEncoder encoder(*tokenizer, 64);
  GenerationSpec options;
  options.max_gen_toks = 60;
  const auto comm = comm::make_self_comm();
  const auto both =
      generate_answers(*model, *tokenizer, encoder, {"a long prompt: tail", "tail"}, options, {}, *comm);
  EXPECT_EQ(both[0], both[1]);
  EXPECT_FALSE(both[0].empty());
}

}  // namespace retort::eval
