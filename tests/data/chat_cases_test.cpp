// Real models' templates against transformers: texts, errors, and what is learned, of every golden case.
#include <gtest/gtest.h>

#include "data/templates/spans.h"
#include "data/templates/text.h"
#include "tests/data/chat_data.h"

namespace retort::data {
namespace {

using formats::Json;
using testing::chat_of;
using testing::error_text;

class ChatCases : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    RETORT_NEEDS_TEST_DATA();
    ASSERT_FALSE(GetParam().empty()) << "the test data has no chat templates";
    file_ = formats::read_json(testing::test_data() / "chat" / GetParam() / "cases.json");
    form_.emplace(GetParam(), testing::template_of(GetParam()));
  }

  Json in_characters(const std::string& text, const std::vector<TextSpan>& spans) {
    Json out = Json::array();
    const auto characters = [&](size_t end) {
      return jinja::characters(std::string_view(text).substr(0, end), false);
    };
    for (const TextSpan& span : spans) out.push_back({characters(span.begin), characters(span.end)});
    return out;
  }

  Json file_;
  std::optional<ChatTemplate> form_;
};

}  // namespace

TEST_P(ChatCases, TextsAndErrorsAreTransformers) {
  size_t texts = 0, errors = 0;
  for (const Json& one : file_.at("cases")) {
    SCOPED_TRACE(one.at("name").get<std::string>());
    const Chat chat = chat_of(file_, one);
    const auto text = [&] {
      return one.contains("continue_final_message") ? render_open(*form_, chat) : render(*form_, chat).text;
    };
    if (one.contains("error")) {
      ++errors;
      try {
        ADD_FAILURE() << "rendered: " << text();
      } catch (const DataError& error) {
        EXPECT_EQ(error_text(error.what()), one.at("error").at("text").get<std::string>());
      }
    } else {
      ++texts;
      EXPECT_EQ(text(), one.at("text").get<std::string>());
    }
  }
  EXPECT_EQ(texts + errors, file_.at("cases").size());
  EXPECT_GT(texts, 15u);
}

TEST_P(ChatCases, WhatTheAssistantSaysIsFound) {
  std::vector<std::string> marks;
  for (const Json& mark : file_.at("end_of_turn")) marks.push_back(mark.get<std::string>());
  size_t found = 0;
  for (const Json& one : file_.at("cases")) {
    if (!one.contains("assistant")) continue;
    SCOPED_TRACE(one.at("name").get<std::string>());
    const Chat chat = chat_of(file_, one);
    const Rendered rendered = render(*form_, chat);
    std::vector<TextSpan> spans, turns;
    for (const AssistantSpan& span : assistant_spans(*form_, chat, rendered, marks)) {
      spans.push_back(span.learned);
      turns.push_back(span.turn);
      EXPECT_EQ(span.marked, std::any_of(marks.begin(), marks.end(), [&](const std::string& mark) {
                  return std::string_view(rendered.text).substr(0, span.learned.end).ends_with(mark);
                }));
    }
    found += spans.size();
    Json bytes = Json::array();
    for (const TextSpan& span : spans) bytes.push_back({span.begin, span.end});
    EXPECT_EQ(in_characters(rendered.text, spans), one.at("assistant"));
    EXPECT_EQ(in_characters(rendered.text, turns), one.at("turns"));
    EXPECT_EQ(bytes, one.at("assistant_bytes"));
    EXPECT_EQ(form_->has_generation(), one.contains("generation"));
    if (one.contains("generation")) {
      EXPECT_EQ(in_characters(rendered.text, rendered.generation), one.at("generation"));
    }
  }
  EXPECT_GT(found, 10u);
}

INSTANTIATE_TEST_SUITE_P(ChatCases, ChatCases, ::testing::ValuesIn(testing::chat_folders()),
                         [](const auto& info) {
                           std::string name = info.param.empty() ? "none" : info.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace retort::data
