#include <gmock/gmock.h>

#include "core/error.h"
#include "core/random.h"
#include "data/tokenizers/tokenizer.h"
#include "tests/testing.h"

namespace retort::data {
namespace {

// The pieces, a bar after each stop.
std::string shown(std::string_view text) {
  std::string out;
  for (const int32_t id : make_tokenizer("bytes+stop")->encode(text))
    out += id == 256 ? '|' : static_cast<char>(id);
  return out;
}

TEST(StopByteTokenizer, CutsTextIntoPieces) {
  EXPECT_EQ(shown("In the beginning"), "In| the| beginning|");
  EXPECT_EQ(shown("a  bc, 12x\n\n d!"), "a| | bc|,| 12|x|\n\n| d|!|");
  EXPECT_EQ(shown("caf\xC3\xA9 "), "caf\xC3\xA9| |");
  EXPECT_EQ(shown(""), "");
}

TEST(StopByteTokenizer, LongPiecesAreCutAndNotLost) {
  EXPECT_EQ(shown("abcdefghijk"), "abcdefghijk|");
  EXPECT_EQ(shown("abcdefghijkl"), "abcdefghijkl");  // twelve need no stop
  EXPECT_EQ(shown("abcdefghijklm n"), "abcdefghijklm| n|");
}

TEST(StopByteTokenizer, GivesBackAnyBytes) {
  const auto tokenizer = make_tokenizer("bytes+stop");
  const Random random(1, "bytes");
  std::string text(5000, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(random.below(i, 256));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_NE(tokenizer->fingerprint(), make_byte_tokenizer()->fingerprint());
  EXPECT_EQ(tokenizer->token_bytes(256), "");
  EXPECT_THROW(tokenizer->decode(std::vector<int32_t>{257}), DataError);
}

}  // namespace
}  // namespace retort::data
