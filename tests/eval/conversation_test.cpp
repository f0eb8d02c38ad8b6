#include "eval/conversation.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/eval/models.h"

namespace retort::eval {
namespace {

using formats::Json;
using retort::testing::make_decoder;

constexpr const char* kForm =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

// A model of 128 tokens writes ASCII, so that an answer's tokens are its text's.
class Conversations : public ::testing::Test {
 protected:
  Conversation make(const std::string& system = "", int64_t tokens = 20, double temperature = 0.0) {
    return Conversation({.model = *model_,
                         .tokenizer = *tokenizer_,
                         .form = form_,
                         .system = system,
                         .sampling = {.tokens = tokens, .temperature = temperature}});
  }
  // How far the worst token of an answer is below the likeliest of all, after the whole conversation before it.
  double worst_choice(const std::string& before, const Turn& turn) {
    std::vector<int32_t> text = tokenizer_->encode(before);
    double worst = 0;
    for (const int32_t id : turn.tokens.ids) {
      const std::vector<int64_t> ids(text.begin(), text.end());
      const at::Tensor last_V = logits(*model_, at::tensor(ids).unsqueeze(0))[0][-1];
      worst = std::max(worst, last_V.max().item<double>() - last_V[id].item<double>());
      text.push_back(id);
    }
    return worst;
  }

  std::unique_ptr<models::Decoder> model_ = make_decoder(128, 256);
  std::unique_ptr<data::Tokenizer> tokenizer_ = data::make_byte_tokenizer();
  data::ChatTemplate form_ = data::ChatTemplate("form", kForm);
};

}  // namespace

TEST_F(Conversations, EachAnswerFollowsAllBeforeItAndOldTokensAreNotReadAgain) {
  Conversation talk = make("Be brief.");
  std::string before = "<system>Be brief.";
  int64_t seen = 0;
  for (const std::string text : {"Hello", "And then?", "So?"}) {
    before += "<user>" + text + "<assistant>";
    std::string streamed;
    const Turn turn = talk.say(text, [&](std::string_view piece) {
      streamed += piece;
      return true;
    });
    EXPECT_EQ(turn.prompt, std::ssize(before));
    EXPECT_EQ(turn.read, turn.prompt - seen);
    ASSERT_EQ(turn.tokens.ids.size(), 20u);
    EXPECT_LT(worst_choice(before, turn), 1e-4) << text;
    EXPECT_EQ(turn.answer, tokenizer_->decode(turn.tokens.ids));
    EXPECT_EQ(turn.answer, streamed);
    before += turn.answer;
    seen = std::ssize(before) - 1;  // the last token of an answer was drawn and not yet read
  }
  ASSERT_EQ(talk.messages().size(), 7u);
  EXPECT_EQ(talk.messages()[3], (Json{{"role", "user"}, {"content", "And then?"}}));
  EXPECT_EQ(talk.messages()[6]["role"], "assistant");
}

TEST_F(Conversations, ResetForgetsAllButTheSystemText) {
  Conversation talk = make("Be brief.");
  const Turn first = talk.say("Hello");
  talk.say("More");
  talk.reset();
  EXPECT_EQ(talk.messages(), Json::array({{{"role", "system"}, {"content", "Be brief."}}}));
  const Turn again = talk.say("Hello");
  EXPECT_EQ(again.prompt, first.prompt);
  EXPECT_EQ(again.read, 1);  // the beginning is still there
  EXPECT_LT(worst_choice("<system>Be brief.<user>Hello<assistant>", again), 1e-4);
}

TEST_F(Conversations, WhatDoesNotFitIsRefusedAndForgotten) {
  Conversation talk = make();
  const Turn first = talk.say("Hello");
  const Json before = talk.messages();
  const Turn refused = talk.say(std::string(200, 'x'));
  EXPECT_TRUE(refused.refused);
  EXPECT_EQ(refused.prompt, std::ssize("<user>Hello<assistant>") - 1 + 20 + 200 + 17);
  EXPECT_EQ(talk.messages(), before);
  const Turn next = talk.say("Go on");
  EXPECT_FALSE(next.refused);
  EXPECT_LT(worst_choice("<user>Hello<assistant>" + first.answer + "<user>Go on<assistant>", next), 1e-4);
}

TEST_F(Conversations, AFullContextCutsAnAnswerAndSaysSo) {
  Conversation talk = make("", 250);
  const Turn turn = talk.say("Hello");
  EXPECT_EQ(turn.tokens.finish, Finish::kContext);
  EXPECT_EQ(turn.prompt + std::ssize(turn.tokens.ids), 256);
  EXPECT_TRUE(talk.say("More").refused);
}

TEST_F(Conversations, ATurnThatThrowsIsForgotten) {
  Conversation talk = make();
  const Turn first = talk.say("Hello");
  const Json before = talk.messages();
  int pieces = 0;
  EXPECT_THROW(talk.say("What",
                        [&](std::string_view) {
                          if (++pieces == 3) fail<IoError>("gone");
                          return true;
                        }),
               IoError);
  EXPECT_EQ(talk.messages(), before);
  const Turn next = talk.say("Go on");
  EXPECT_LT(worst_choice("<user>Hello<assistant>" + first.answer + "<user>Go on<assistant>", next), 1e-4);
}

// Equal questions draw from streams of their own.
TEST_F(Conversations, EachTurnDrawsAnew) {
  Conversation talk = make("", 20, 1.0);
  const std::string first = talk.say("Hello").answer;
  talk.reset();
  EXPECT_NE(talk.say("Hello").answer, first);
  EXPECT_EQ(make("", 20, 1.0).say("Hello").answer, first);
}

TEST_F(Conversations, AStopTextAndTheCallerEndAnAnswer) {
  Conversation talk = make("", 40);
  const std::string whole = talk.say("Hello").answer;
  Conversation stopping({.model = *model_,
                         .tokenizer = *tokenizer_,
                         .form = form_,
                         .sampling = {.tokens = 40, .stop = {whole.substr(10, 3)}}});
  const Turn stopped = stopping.say("Hello");
  EXPECT_EQ(stopped.tokens.finish, Finish::kStop);
  EXPECT_EQ(stopped.answer, whole.substr(0, whole.find(whole.substr(10, 3))));
  EXPECT_EQ(stopping.messages()[1]["content"], stopped.answer);
  const Turn left = make("", 40).say("Hello", [](std::string_view) { return false; });
  EXPECT_EQ(left.tokens.ids.size(), 1u);
}

// Their keys depend on what follows them.
TEST_F(Conversations, BytePatchModelsReadAllAtEveryTurn) {
  const auto model = testing::make_patch_model(128);
  Conversation talk({.model = *model, .tokenizer = *tokenizer_, .form = form_, .sampling = {.tokens = 8}});
  talk.say("Hello");
  formats::Json before = talk.messages();
  const Turn turn = talk.say("And?");
  EXPECT_EQ(turn.read, turn.prompt);
  data::Chat whole;
  before.push_back({{"role", "user"}, {"content", "And?"}});
  whole.messages = before;
  whole.generation_prompt = true;
  const auto ids = tokenizer_->encode(data::render(form_, whole).text);
  EXPECT_EQ(turn.tokens.ids, generate(*model, {ids}, {.tokens = 8}).front().ids);
}

TEST_F(Conversations, ASystemTextMustBeWritten) {
  const data::ChatTemplate deaf("deaf",
                                "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}");
  const auto make_deaf = [&](const char* system) {
    Conversation({.model = *model_, .tokenizer = *tokenizer_, .form = deaf, .system = system});
  };
  EXPECT_THROW(make_deaf("Be brief."), ConfigError);
  EXPECT_NO_THROW(make_deaf(""));
}

}  // namespace retort::eval
