#include "data/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::data {

using ::testing::ElementsAre;

TEST(Regex, FindsEveryMatchWithItsGroups) {
  EXPECT_THAT(Regex("(-?[$0-9.,]{2,})|(-?[0-9]+)").find_all("7 of 1,800, or -3"),
              ElementsAre(ElementsAre("7", "", "7"), ElementsAre("1,800,", "1,800,", ""),
                          ElementsAre("-3", "", "-3")));
  EXPECT_THAT(Regex("b*").find_all("abb\u00e9"),
              ElementsAre(ElementsAre(""), ElementsAre("bb"), ElementsAre(""), ElementsAre("")));
  EXPECT_TRUE(Regex("x").find_all("abc").empty());
  EXPECT_THAT(Regex(".").find_all("\u00e9"), ElementsAre(ElementsAre("\u00e9"))) << "characters, not bytes";
}

TEST(Regex, ReplacesWithGroups) {
  EXPECT_EQ(Regex("\\[.*?\\]").replace_all("a [b] c [d]", ""), "a  c ");
  EXPECT_EQ(Regex("\\(\\s*([^\\)]*?)\\s*\\)").replace_all("f ( x ) ( )", "($1)"), "f (x) ()");
  EXPECT_EQ(Regex("(?s).*#### ").replace_all("a\nb #### 18", ""), "18");
  EXPECT_EQ(Regex("a").replace_all(std::string(1000, 'a'), "bcd").size(), 3000u)
      << "more than there was room for";
}

TEST(Regex, SaysWhatIsWrong) {
  EXPECT_THROW(Regex("(a"), ConfigError);
  EXPECT_THROW(Regex("(x+x+)+[yz]").find_all(std::string(40, 'x')), DataError) << "backtracks without end";
}

}  // namespace retort::data
