#include "data/tokenizers/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.h"

namespace retort::data {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(Utf8, TheFirstCharacterIsWholeOpenOrNone) {
  const auto expect = [](std::string_view text, size_t bytes, bool valid, bool open) {
    const Utf8Part first = first_character(text);
    EXPECT_EQ(first.bytes, bytes) << text;
    EXPECT_EQ(first.valid, valid) << text;
    EXPECT_EQ(first.open, open) << text;
  };
  expect("a\u00e9", 1, true, false);
  expect("\u00e9a", 2, true, false);
  expect("\u20aca", 3, true, false);
  expect("\U0010ffffa", 4, true, false);
  expect("\xe2\x82", 2, false, true);
  expect("\xf0", 1, false, true);
  expect("\xe2\x82z", 2, false, false);
  expect("\xe0\x9f\xbf", 1, false, false);  // a long form
  expect("\xed\xa0\x80", 1, false, false);  // a surrogate
  expect("\x80", 1, false, false);
}

TEST(Utf8, BytesThatAreNoneFollowTheRule) {
  const auto ruled = [](std::string text, const char* rule) {
    check_utf8(text, rule, "here");
    return text;
  };
  const std::string good = "a\u00e9\u20ac\U0001f600\ufffd";
  // A surrogate, a long form, beyond U+10FFFF, a lone lead, a lone tail: maximal parts as Unicode 3.9 counts.
  const std::vector<std::pair<std::string, int>> bad = {
      {"\xed\xa0\x80", 3}, {"\xc0\xaf", 2},     {"\xf4\x90\x80\x80", 4}, {"\xe2\x82", 1},
      {"\x80", 1},         {"\xf0\x9f\x98", 1}, {"\xff\xfe", 2}};
  for (const char* rule : {"keep", "replace", "refuse"}) EXPECT_EQ(ruled(good, rule), good);
  for (const auto& [bytes, marks] : bad) {
    std::string replaced = good;
    for (int i = 0; i < marks; ++i) replaced += "\ufffd";
    EXPECT_EQ(ruled(good + bytes + "z", "keep"), good + bytes + "z");
    EXPECT_EQ(ruled(good + bytes + "z", "replace"), replaced + "z");
    EXPECT_EQ(ruled(good + bytes, "replace"), replaced);
    try {
      ruled(good + bytes + "z", "refuse");
      ADD_FAILURE() << "nothing was thrown";
    } catch (const DataError& error) {
      EXPECT_THAT(std::string(error.what()),
                  AllOf(HasSubstr("here: must be UTF-8"), HasSubstr(fmt::format("at {}", good.size()))));
    }
  }
}

}  // namespace retort::data
