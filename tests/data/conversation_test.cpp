#include "data/templates/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/templates/shipped.h"
#include "data/templates/spans.h"
#include "tests/data/packing.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

using formats::Json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TemporaryDirectory;
using testing::write_file;

Json said(std::initializer_list<std::pair<const char*, const char*>> messages) {
  Json out = Json::array();
  for (const auto& [role, content] : messages) out.push_back({{"role", role}, {"content", content}});
  return out;
}

const Json kTalk = said({{"user", "Hi"}, {"assistant", "Hello."}, {"user", "Bye"}, {"assistant", "Ciao."}});

// What is learned stands between brackets.
std::string shown(const ConversationForm& form, const Json& messages) {
  std::string out;
  bool before = false;
  for (const Span& span : form.spans(messages, "here")) {
    EXPECT_FALSE(span.text.empty());
    EXPECT_TRUE(out.empty() || span.learned != before) << "neighbours alike are one span";
    before = span.learned;
    out += span.learned ? "[" + span.text + "]" : span.text;
  }
  return out;
}
std::string shown(const std::string& name, const Json& messages) {
  return shown({name, "", nullptr}, messages);
}

class Conversation : public ::testing::Test {
 protected:
  std::string form(const std::string& text) { return write_file(directory_ / "x.jinja", text); }
  std::string refusal(const std::string& text, const Json& messages) {
    try {
      ConversationForm(form(text), "", bytes_.get()).spans(messages, "chats.jsonl:3");
      return "";
    } catch (const DataError& error) {
      return error.what();
    }
  }
  TemporaryDirectory directory_;
  std::unique_ptr<Tokenizer> bytes_ = make_byte_tokenizer();
};

}  // namespace

TEST_F(Conversation, AnswersAndTheirStopsAreLearned) {
  EXPECT_EQ(shown("alpaca", kTalk),
            "### Instruction:\nHi\n\n### Response:\n[Hello.\n\n]### Instruction:\nBye\n\n### "
            "Response:\n[Ciao.\n\n]");
  EXPECT_EQ(shown("chatml", kTalk),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Hello.<|im_end|>]\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n[Ciao.<|im_end|>]\n");
  EXPECT_EQ(shown("llama3", said({{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello."}})),
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n[Hello.<|eot_id|>]");
  const Json one = said({{"user", "Hi"}, {"assistant", "Hello."}});
  EXPECT_EQ(shown("phi3", one), "<|user|>\nHi<|end|>\n<|assistant|>\n[Hello.<|end|>]\n");
  EXPECT_EQ(shown("gemma", one),
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n[Hello.<end_of_turn>]\n");
}

TEST_F(Conversation, SpacesOfMessagesAreKept) {
  const Json spaces =
      said({{"system", " \n"}, {"user", "\n a\t"}, {"assistant", " \n b\n\n"}, {"assistant", ""}});
  EXPECT_EQ(shown("alpaca", spaces),
            " \n\n\n### Instruction:\n\n a\t\n\n### Response:\n[ \n b\n\n\n\n]### Response:\n[\n\n]");
  EXPECT_EQ(shown("chatml", spaces),
            "<|im_start|>system\n \n<|im_end|>\n<|im_start|>user\n\n a\t<|im_end|>\n<|im_start|>assistant\n"
            "[ \n b\n\n<|im_end|>]\n<|im_start|>assistant\n[<|im_end|>]\n");
}

TEST_F(Conversation, SpecialMarksAreThoseItPrints) {
  for (const ShippedTemplate& row : shipped_templates()) {
    const ConversationForm form(row.name, "", nullptr);
    Json all = said({{"user", "x"}, {"assistant", "x"}});
    if (row.name != "gemma") all.insert(all.begin(), said({{"system", "x"}}).front());
    std::string text;
    for (const Span& span : form.spans(all, "here")) text += span.text;
    for (const std::string& mark : form.marks()) EXPECT_THAT(text, HasSubstr(mark)) << row.name;
  }
}

TEST_F(Conversation, ARoleThatItLacksIsNamed) {
  for (const auto& [name, roles] :
       {std::pair("gemma", "user, assistant"), {"alpaca", "system, user, assistant"}}) {
    try {
      ConversationForm(name, "", nullptr).spans(said({{"tool", "x"}}), "chats.jsonl:3");
      FAIL();
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("chats.jsonl:3"), HasSubstr(name), HasSubstr(roles),
                                      HasSubstr("\"tool\"")));
    }
  }
  EXPECT_THROW(ConversationForm("chatlm", "", nullptr), ConfigError);
}

TEST_F(Conversation, AnOwnTemplateSaysWhatIsLearned) {
  const std::string plain =
      "{% for m in messages %}<{{ m.role }}>{{ m.content|trim }}</s>\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}";
  write_file(directory_ / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  const ConversationForm own(form(plain), "", bytes_.get());
  EXPECT_EQ(shown(own, kTalk),
            "<user>Hi</s>\n<assistant>[Hello.</s>]\n<user>Bye</s>\n<assistant>[Ciao.</s>]\n");
  EXPECT_THAT(own.marks(), ElementsAre("</s>"));
  EXPECT_NE(own.identity(), ConversationForm(form(plain + " "), "", bytes_.get()).identity());
  // The header is within {% generation %}: it is what the prompt gives, so it is not learned.
  EXPECT_EQ(
      shown({form("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<assistant>"
                  "{{ m.content }}</s>\n{% endgeneration %}{% else %}<{{ m.role }}>{{ m.content }}</s>\n"
                  "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"),
             "", bytes_.get()},
            kTalk),
      "<user>Hi</s>\n<assistant>[Hello.</s>\n]<user>Bye</s>\n<assistant>[Ciao.</s>\n]");
  // Turns that a macro prints are not within a loop that the text is written in.
  EXPECT_EQ(
      shown({form("{% macro all() %}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
                  "{% endmacro %}{{ all() }}{% if add_generation_prompt %}<assistant>{% endif %}"),
             "", bytes_.get()},
            kTalk),
      "<user>Hi</s><assistant>[Hello.</s>]<user>Bye</s><assistant>[Ciao.</s>]");
}

TEST_F(Conversation, WhatWouldTeachSomethingElseIsRefused) {
  EXPECT_THAT(
      refusal("{% for m in messages %}{{ m.content }}{{ raise_exception('one at a time') }}{% endfor %}",
              kTalk),
      AllOf(HasSubstr("chats.jsonl:3: "), HasSubstr("x.jinja:1:"), HasSubstr("one at a time")));
  EXPECT_THAT(refusal("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", kTalk),
              HasSubstr("does not print message 2"));
  Json calls = said({{"user", "Hi"}, {"assistant", ""}});
  calls[1]["tool_calls"] = Json::parse(R"([{"function": {"name": "f"}}])");
  EXPECT_THAT(refusal("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
                      "{% if add_generation_prompt %}<assistant>{% endif %}",
                      calls),
              HasSubstr("prints nothing of message 2"));
  write_file(directory_ / "tokenizer_config.json", R"({"eos_token": "</s>"})");
  EXPECT_THAT(
      refusal("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}</s>{% endfor %}",
              kTalk),
      HasSubstr("{% generation %} ends before the mark"));
  EXPECT_THAT(refusal("{{ messages|length }}{{ messages|map(attribute='content')|join }}", kTalk),
              HasSubstr("outside a loop over messages"));
}

TEST_F(Conversation, ADateIsGivenToThoseThatAsk) {
  const std::string dated =
      form("{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_THROW(ConversationForm(dated, "", nullptr), ConfigError);
  EXPECT_THROW(ConversationForm(dated, "3 Feb 2026", nullptr), ConfigError);
  EXPECT_THROW(ConversationForm(dated, "2026-02-30", nullptr), ConfigError);
  EXPECT_EQ(ConversationForm(dated, "2026-02-03", nullptr).spans(said({{"user", "Hi"}}), "here")[0].text,
            "03 Feb 2026Hi");
}

// A tokenizer whose control tokens are the marks of the golden templates.
class Marked final : public Tokenizer {
 public:
  std::string name() const override { return "marked"; }
  int64_t vocabulary() const override { return static_cast<int64_t>(tokens_.size()); }
  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> out;
    while (!text.empty()) {
      size_t token = 0;
      for (size_t i = 1; i < tokens_.size(); ++i)
        if (text.starts_with(tokens_[i])) token = i;
      out.push_back(static_cast<int32_t>(token));
      text.remove_prefix(token == 0 ? 1 : tokens_[token].size());
    }
    return out;
  }
  std::string decode(std::span<const int32_t>) const override { return ""; }
  std::string_view token_bytes(int32_t id) const override { return tokens_[static_cast<size_t>(id)]; }
  bool is_special(int32_t id) const override { return id != 0; }
  std::optional<int32_t> separator() const override { return std::nullopt; }
  std::string fingerprint() const override { return ""; }
  formats::GgufMetadata gguf_metadata() const override { return {}; }
  std::map<std::string, std::string> hf_files() const override { return {}; }

 private:
  std::vector<std::string> tokens_ = {
      "?",       "<|im_start|>",  "<|im_end|>",    "<|eot_id|>", "<|start_header_id|>",
      "<|end|>", "<end_of_turn>", "<|assistant|>", "<|return|>", "<|call|>"};
};

TEST_F(Conversation, EndMarksAreFoundByLooking) {
  const Marked tokenizer;
  const auto marks = [&](const std::string& name, const std::vector<int32_t>& ends = {}) {
    return end_marks(ChatTemplate(name, shipped_text(name)), {}, tokenizer, ends);
  };
  EXPECT_THAT(marks("chatml"), ElementsAre("<|im_end|>"));
  EXPECT_THAT(marks("llama3"), ElementsAre("<|eot_id|>"));
  EXPECT_THAT(marks("phi3"), ElementsAre("<|end|>"));
  EXPECT_THAT(marks("gemma"), ElementsAre("<end_of_turn>"));
  EXPECT_THAT(marks("chatml", {2, 9, 1000, -1}), ElementsAre("<|im_end|>", "<|call|>"));
  EXPECT_TRUE(marks("alpaca").empty());
}

}  // namespace retort::data
