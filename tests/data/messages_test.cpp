#include "data/messages.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::data {
namespace {

using formats::Json;
using ::testing::HasSubstr;

template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST(Messages, ShareGptsNamesBecomeTheUsualOnes) {
  const Json shared = {{{"from", "human"}, {"value", "a"}}, {{"from", "gpt"}, {"value", "b"}}};
  const Json usual = {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}};
  for (const bool shipped : {true, false}) EXPECT_EQ(messages_of(shared, shipped, "f:1"), usual);
}

// A model's own template may read more of a message; a shipped one reads two texts.
TEST(Messages, AModelsTemplateGetsAllOfAMessage) {
  const Json list =
      Json::array({{{"role", "assistant"}, {"content", nullptr}, {"tool_calls", Json::array({1})}}});
  EXPECT_EQ(messages_of(list, false, "f:1"), list);
  EXPECT_EQ(messages_of(list, true, "f:1"), Json::array({{{"role", "assistant"}, {"content", ""}}}));
}

TEST(Messages, WhatIsWrongIsNamedWithItsPlace) {
  EXPECT_THAT(error_of([] { messages_of(Json::array(), true, "f:7"); }),
              HasSubstr("f:7: messages must be a list"));
  EXPECT_THAT(error_of([] { messages_of("text", true, "f:7"); }), HasSubstr("got string"));
  const Json no_role = Json::array({{{"role", "user"}, {"content", "a"}}, {{"rolle", "user"}}});
  EXPECT_THAT(error_of([&] { messages_of(no_role, true, "f:7"); }),
              AllOf(HasSubstr("f:7 message 2"), HasSubstr("\"role\""), HasSubstr("rolle")));
  EXPECT_THAT(error_of([] {
                text_field({{"text", 3}}, "text", "f:7");
              }),
              HasSubstr("must be text, got number"));
}

}  // namespace retort::data
