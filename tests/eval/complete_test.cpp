#include "eval/complete.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/tokenizers/utf8.h"
#include "tests/eval/models.h"

namespace retort::eval {
namespace {

using retort::testing::make_decoder;

class Complete : public ::testing::Test {
 protected:
  Completion one(const SamplingOptions& options) {
    return complete(*model_, *tokenizer_, {"In the beginning"}, options).front();
  }
  std::unique_ptr<models::Decoder> model_ = make_decoder(256, 96);
  std::unique_ptr<data::Tokenizer> tokenizer_ = data::make_byte_tokenizer();
};

}  // namespace

// Weights drawn at random make bytes of all kinds, so little of it is UTF-8.
TEST_F(Complete, TextIsUtf8AndStreamsAsItIsReturned) {
  const SamplingOptions options = {.tokens = 60, .temperature = 1.5, .seed = 2};
  std::vector<std::string> streamed(3);
  const std::vector<std::string> prompts = {"In the beginning", "a", "\u00e9\u00e9"};
  const auto all = complete(*model_, *tokenizer_, prompts, options, [&](size_t i, std::string_view text) {
    std::string piece(text);
    EXPECT_NO_THROW(data::check_utf8(piece, "refuse", "a piece"));
    streamed[i] += piece;
    return true;
  });
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(all[i].prompt, tokenizer_->encode(prompts[i]));
    EXPECT_EQ(all[i].text, streamed[i]);
    EXPECT_EQ(all[i].tokens.ids.size(), 60u);
    EXPECT_EQ(all[i].tokens.finish, Finish::kLength);
    std::string raw = tokenizer_->decode(all[i].tokens.ids);
    data::check_utf8(raw, "replace", "");
    EXPECT_EQ(all[i].text, raw);
    EXPECT_GT(all[i].tokens.tokens_per_second(), 0);
    EXPECT_GE(all[i].tokens.seconds, all[i].tokens.first_seconds);
  }
}

TEST_F(Complete, APromptsMisfitIsWhatCompletingItSays) {
  EXPECT_EQ(prompt_misfit(*tokenizer_, "a", 1), "");
  EXPECT_EQ(prompt_misfit(*tokenizer_, "ab", 1), "\"ab\": a prompt must fit the context of 1 tokens, got 2");
  EXPECT_EQ(prompt_misfit(*tokenizer_, "", 1), "\"\": a prompt must have at least one token");
  const std::string longest(static_cast<size_t>(model_->context()), 'a');
  EXPECT_EQ(prompt_misfit(*tokenizer_, longest, model_->context()), "");
  EXPECT_NO_THROW(complete(*model_, *tokenizer_, {longest}, {.tokens = 1}));
  EXPECT_THROW(complete(*model_, *tokenizer_, {longest + "a"}, {.tokens = 1}), DataError);
  EXPECT_THROW(complete(*model_, *tokenizer_, {""}, {.tokens = 1}), DataError);
}

TEST_F(Complete, AStopTextEndsItAndIsNoPartOfIt) {
  const Completion whole = one({.tokens = 40});
  const std::string text = tokenizer_->decode(whole.tokens.ids);
  const std::string stop = text.substr(17, 3);  // three tokens
  const Completion stopped = one({.tokens = 40, .stop = {"never", stop}});
  EXPECT_EQ(stopped.tokens.finish, Finish::kStop);
  const size_t first = text.find(stop);
  EXPECT_EQ(stopped.tokens.ids.size(), first + 3);
  std::string expected = text.substr(0, first);
  data::check_utf8(expected, "replace", "");
  EXPECT_EQ(stopped.text, expected);
}

TEST_F(Complete, EachEndTokenEndsItAndIsNoPartOfIt) {
  const std::vector<int32_t> whole = one({.tokens = 40}).tokens.ids;
  const auto ended = [&](const std::vector<int32_t>& ends) {
    return complete(*model_, *tokenizer_, {"In the beginning"}, {.tokens = 40}, {}, ends).front();
  };
  const auto end = std::find(whole.begin(), whole.end(), whole[20]);  // its first place
  for (const std::vector<int32_t>& ends : {std::vector{*end}, std::vector{-1, *end}}) {
    const Completion stopped = ended(ends);
    EXPECT_EQ(stopped.tokens.finish, Finish::kEnd);
    EXPECT_EQ(stopped.tokens.ids, std::vector<int32_t>(whole.begin(), end + 1));
    std::string expected = tokenizer_->decode(std::vector<int32_t>(whole.begin(), end));
    data::check_utf8(expected, "replace", "");
    EXPECT_EQ(stopped.text, expected);
  }
}

TEST_F(Complete, TheCallerMayEndIt) {
  int pieces = 0;
  const auto all = complete(*model_, *tokenizer_, {"a", "b"}, {.tokens = 40, .temperature = 1.0},
                            [&](size_t i, std::string_view) { return i == 1 || ++pieces < 4; });
  EXPECT_EQ(all[0].tokens.finish, Finish::kStop);
  EXPECT_LT(all[0].tokens.ids.size(), 40u);
  EXPECT_EQ(all[1].tokens.finish, Finish::kLength);
}

// What is held back when the caller ends a prompt (here bytes of a character that is never whole) stays back.
TEST_F(Complete, AnEndedPromptIsNotHeardOfAgain) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    int after = 0;
    bool ended = false;
    complete(*model_, *tokenizer_, {"a"}, {.tokens = 10, .temperature = 1.5, .seed = seed},
             [&](size_t, std::string_view) {
               after += ended ? 1 : 0;
               ended = true;
               return false;
             });
    EXPECT_EQ(after, 0) << seed;
  }
}

TEST_F(Complete, RefusesAnEmptyPrompt) {
  EXPECT_THROW(complete(*model_, *tokenizer_, {""}, {}), DataError);
  EXPECT_THROW(complete(*model_, *tokenizer_, {"a"}, {.stop = {""}}), ConfigError);
}

}  // namespace retort::eval
