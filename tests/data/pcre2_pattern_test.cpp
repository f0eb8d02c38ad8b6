#include "data/pcre2_pattern.h"

#include <gmock/gmock.h>

#include "core/error.h"

namespace retort::data {
namespace {

int match(const std::string& pattern, std::string_view text, uint32_t steps = pcre2::kSteps) {
  const pcre2::Code code = pcre2::compile(pattern, "[test]");
  return pcre2_match(code.get(), pcre2::units(text), text.size(), 0, PCRE2_NO_JIT,
                     pcre2::match_of(code, "[test]").get(), pcre2::limit(steps, "[test]").get());
}

}  // namespace

TEST(Pcre2Pattern, CharactersAreUnicodesAndOtherBytesMatchNothing) {
  EXPECT_GT(match("^\\w$", "\u00fc"), 0);
  EXPECT_EQ(match("^.$", "\xff"), PCRE2_ERROR_NOMATCH);
}

TEST(Pcre2Pattern, AMatchThatTakesTooManyStepsIsStopped) {
  // A class, because PCRE2 looks for a needed character before it begins.
  const int stopped = match("(a*)*[bc]", std::string(40, 'a'), 1000);
  EXPECT_EQ(stopped, PCRE2_ERROR_MATCHLIMIT);
  EXPECT_THAT(pcre2::reason(stopped), ::testing::HasSubstr("match limit"));
}

TEST(Pcre2Pattern, AWrongPatternIsNamedWithItsPlace) {
  try {
    pcre2::compile("a(b", "[test]");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), ::testing::StartsWith("[test] the pattern a(b fails at character 3: "));
  }
}

}  // namespace retort::data
