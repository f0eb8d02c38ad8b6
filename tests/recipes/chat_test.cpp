#include "recipes/chat.h"

#include <gmock/gmock.h>

#include <fstream>

#include "core/file.h"
#include "formats/json.h"
#include "tests/artifacts/tiny.h"
#include "tests/testing.h"

namespace retort::recipes {
namespace {

using ::testing::HasSubstr;

// A model of 64 tokens' context that writes noise.
class ChatTest : public ::testing::Test {
 protected:
  ChatTest() {
    artifacts::save_tiny(*artifacts::tiny_model(4), directory_ / "model", 1, std::nullopt);
    std::ofstream(directory_ / "form.jinja")
        << "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}a:";
    options_.form = at("form.jinja");
    options_.generate.sampling.tokens = 4;
  }
  std::string at(const std::string& name) const { return (directory_ / name).string(); }
  Chat open(const std::string& model) {
    answers_.clear(), notes_.clear();
    const auto into = [](std::string& text) {
      return [&text](std::string_view more) {
        text += more;
        return true;
      };
    };
    return {model, options_, into(answers_), into(notes_), log_};
  }
  std::string error_of(const std::string& line) {
    Chat chat = open(at("model"));
    try {
      chat.take(line);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  testing::TemporaryDirectory directory_;
  ChatOptions options_;
  Log log_;
  std::string answers_, notes_;
};

}  // namespace

TEST_F(ChatTest, ResetBeginsAnotherConversation) {
  Chat chat = open(at("model"));
  for (const char* line : {"Hi", "/reset"}) EXPECT_TRUE(chat.take(line));
  const std::string first = answers_;
  for (const std::string& line : {std::string("Hi"), "/save " + at("talk.json")})
    EXPECT_TRUE(chat.take(line));
  EXPECT_EQ(formats::read_json(at("talk.json")).size(), 2u);
  EXPECT_TRUE(answers_.starts_with(first) && answers_.size() > first.size());
  Chat again = open(at("model"));
  again.take("Hi");
  EXPECT_EQ(answers_, first);
}

// Lines of a file from elsewhere may end in a carriage return.
TEST_F(ChatTest, TakesLinesThatEndInACarriageReturn) {
  Chat chat = open(at("model"));
  chat.take("Hi\r");
  chat.take("/save " + at("talk.json") + "\r");
  EXPECT_EQ(formats::read_json(at("talk.json"))[0].at("content"), "Hi");
  EXPECT_EQ(error_of("/reset\r"), "");
}

TEST_F(ChatTest, SaysWhenTheContextIsFull) {
  Chat chat = open(at("model"));
  for (const std::string& line : {std::string(60, 'x'), std::string("Hi"), "/save " + at("talk.json")})
    chat.take(line);
  EXPECT_THAT(notes_, HasSubstr("no room: the conversation would have 65 tokens, and the model reads 64"));
  EXPECT_EQ(formats::read_json(at("talk.json")).size(), 2u);
  Chat other = open(at("model"));
  other.take(std::string(57, 'x'));
  EXPECT_THAT(notes_, HasSubstr("cut off: the 64 tokens"));
}

TEST_F(ChatTest, RefusesWhatIsNoCommand) {
  EXPECT_THAT(error_of("/rest"), HasSubstr("unknown command /rest; did you mean \"/reset\"?"));
  EXPECT_THAT(error_of("/save"), HasSubstr("/save wants a file"));
  EXPECT_THAT(error_of("/save /nowhere/x.json"), HasSubstr("/nowhere"));
  EXPECT_EQ(error_of("/help"), "");
  EXPECT_THAT(notes_, HasSubstr("/save FILE"));
  EXPECT_EQ(error_of(" /rest"), "");  // no command
  EXPECT_NE(answers_, "");
}

TEST_F(ChatTest, EndsWhenNobodyReads) {
  Chat chat(
      at("model"), options_, [](std::string_view) { return false; }, [](std::string_view) { return true; },
      log_);
  EXPECT_FALSE(chat.take("Hi"));
}

TEST_F(ChatTest, RefusesAModelWithoutATemplate) {
  const auto refusal = [&](const std::string& model, const std::string& form) -> std::string {
    options_.form = form;
    try {
      open(model);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(refusal(at("model"), ""), HasSubstr("has no chat template; pass --template: alpaca, chatml"));
  EXPECT_EQ(refusal(at("model"), "chatml"), "");
  EXPECT_THAT(refusal(at("model"), "chatlm"), HasSubstr("chatml"));
  EXPECT_THAT(refusal("preset:nothing", "chatml"), HasSubstr("preset"));
}

}  // namespace retort::recipes
