#include "data/tokenizers/conversion.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "tests/testing.h"

namespace retort::data {

TEST(Conversion, GoesBothWays) {
  const auto bytes = make_byte_tokenizer();
  EXPECT_EQ(encode_as_text(*bytes, "low"), "108 111 119\n");
  EXPECT_EQ(decode_from_text(*bytes, "108 111, 119\n"), "low");
  EXPECT_EQ(encode_json(*bytes, R"(["a", "ab", ""])", "input"), "[[97],[97,98],[]]\n");
  EXPECT_EQ(decode_json(*bytes, "[[108, 111], [], [255]]", "input"), "[\"lo\",\"\",\"\uFFFD\"]\n");
}

TEST(Conversion, NamesWhatIsNoIdAndNoText) {
  const auto bytes = make_byte_tokenizer();
  for (const char* ids : {"1, x", "-1", "99999999999"})
    EXPECT_THROW(decode_from_text(*bytes, ids), ConfigError) << ids;
  for (const char* texts : {"[3]", "{}", "[", "\"a\""})
    EXPECT_THROW(encode_json(*bytes, texts, "x"), DataError) << texts;
  for (const char* lists : {"[3]", "[[-1]]", "[[\"a\"]]", "[[3000000000]]", "[[1.5]]"})
    EXPECT_THROW(decode_json(*bytes, lists, "x"), DataError) << lists;
}

}  // namespace retort::data
