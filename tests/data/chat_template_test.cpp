#include "data/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::data {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<Message> kTalk = {
    {"user", "Hi"}, {"assistant", "Hello."}, {"user", "Bye"}, {"assistant", "Ciao."}};

// What is learned stands between brackets.
std::string shown(const std::string& form, const std::vector<Message>& messages) {
  std::string out;
  bool before = false;
  for (const Span& span : render(chat_templates().at(form), messages, "here")) {
    EXPECT_FALSE(span.text.empty());
    EXPECT_TRUE(out.empty() || span.learned != before) << "neighbours alike are one span";
    before = span.learned;
    out += span.learned ? "[" + span.text + "]" : span.text;
  }
  return out;
}

}  // namespace

TEST(ChatTemplate, AnswersAndTheirStopsAreLearned) {
  EXPECT_EQ(shown("alpaca", kTalk),
            "### Instruction:\nHi\n\n### Response:\n[Hello.\n\n]### Instruction:\nBye\n\n### "
            "Response:\n[Ciao.\n\n]");
  EXPECT_EQ(shown("chatml", kTalk),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello.<|im_end|>]\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[Ciao.<|im_end|>]\n");
  EXPECT_EQ(shown("llama3", {{"system", "Be brief."}, kTalk[0], kTalk[1]}),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Hello.<|eot_id|>]");
  EXPECT_EQ(shown("phi3", {kTalk[0], kTalk[1]}), "<|user|>\nHi<|end|>\n<|assistant|>\n[Hello.<|end|>]\n");
  EXPECT_EQ(shown("gemma", {kTalk[0], kTalk[1]}),
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n[Hello.<end_of_turn>]\n");
}

TEST(ChatTemplate, SpecialMarksAreThoseItPrints) {
  for (const ChatTemplate& form : chat_templates()) {
    std::vector<Message> all;
    for (const Turn& turn : form.turns) all.push_back({turn.role, "x"});
    std::string text;
    for (const Span& span : render(form, all, "here")) text += span.text;
    for (const std::string& mark : form.special) EXPECT_THAT(text, HasSubstr(mark)) << form.name;
  }
}

TEST(ChatTemplate, ARoleThatItLacksIsNamed) {
  try {
    render(chat_templates().at("gemma"), {{"system", "x"}}, "chats.jsonl:3");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("chats.jsonl:3"), HasSubstr("gemma"),
                                    HasSubstr("user, assistant"), HasSubstr("\"system\"")));
  }
  EXPECT_THROW(chat_templates().at("chatlm"), ConfigError);
}

}  // namespace retort::data
