#include "eval/python_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace retort::eval {

using ::testing::ElementsAre;
using ::testing::Optional;

TEST(PythonText, WhiteSpaceIsPythons) {
  EXPECT_EQ(without_trailing_space("a b \t\n\u00a0\u3000\x1f"), "a b");
  EXPECT_EQ(without_trailing_space("a\u200b"), "a\u200b") << "a zero-width space is none";
  EXPECT_EQ(without_outer_space(" \n a b\u2003"), "a b");
  EXPECT_EQ(without_outer_space(" \n"), "");
}

// len(re.split(r"\s+", text)) of CPython.
TEST(PythonText, WordsCountEmptyEnds) {
  EXPECT_EQ(count_words(""), 1);
  EXPECT_EQ(count_words("a b"), 2);
  EXPECT_EQ(count_words(" a  b\n"), 4);
  EXPECT_EQ(count_characters("a\u00e9\u4e2d"), 3);
}

TEST(PythonText, ReadsPrintedLists) {
  EXPECT_THAT(read_list(R"(['a', "it's", 'say "no"', 'it\'s "both"'])"),
              Optional(ElementsAre("a", "it's", "say \"no\"", "it's \"both\"")));
  EXPECT_THAT(read_list(R"(['\n\t\\', '\xe9\u200b\U0001f600', 3, -2.5, True, None])"),
              Optional(ElementsAre("\n\t\\", "\u00e9\u200b\U0001f600", "3", "-2.5", "True", "None")));
  EXPECT_THAT(read_list("('a',)"), Optional(ElementsAre("a")));
  EXPECT_THAT(read_list("[]"), Optional(ElementsAre()));
  for (const char* text :
       {"", "a", "[", "['a'", "['a' 'b']", "['a]", "[a]", "['a'] ", "['\\q']", "['\\xg0']", "['\\x"})
    EXPECT_EQ(read_list(text), std::nullopt) << text;
}

}  // namespace retort::eval
