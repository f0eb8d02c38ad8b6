#include "data/tokenizers/unicode.h"

#include <gtest/gtest.h>
#include <time.h>
#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <random>

#include "data/tokenizers/byte_alphabet.h"

namespace retort::data {
namespace {

Character first(std::string_view text) { return decode_utf8(text.data(), text.data() + text.size()); }

// utf8proc's own Form C, in quadratic time.
std::string composed_by_utf8proc(const std::string& text) {
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> made(
      utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str())), &std::free);
  return reinterpret_cast<const char*>(made.get());
}

double cpu_seconds(const std::string& text) {
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double before = now();
  nfc(text);
  return now() - before;
}

}  // namespace

TEST(Unicode, EveryCodePointComesBack) {
  for (char32_t value = 0; value < 0x110000; ++value) {
    if (value >= 0xD800 && value < 0xE000) continue;
    std::string text;
    append_utf8(text, value);
    const Character c = first(text);
    ASSERT_EQ(c.value, value);
    ASSERT_EQ(c.bytes, text.size());
    text.pop_back();
    if (!text.empty()) {
      ASSERT_EQ(first(text).value, kMalformed) << static_cast<uint32_t>(value);  // cut short
    }
  }
}

TEST(Unicode, MalformedBytesStandAlone) {
  for (const char* text : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3(", "\xE0\x80\x80", "\xED\xA0\x80",
                           "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE2\x82"}) {
    const Character c = first(text);
    EXPECT_EQ(c.value, kMalformed) << text;
    EXPECT_EQ(c.bytes, 1u) << text;
  }
}

TEST(Unicode, ClassesAreThoseOfThePatterns) {
  using enum CharacterClass;
  const CharacterClass* classes = character_classes();
  EXPECT_EQ(classes[U'a'], kLetter);
  EXPECT_EQ(classes[U'7'], kNumber);
  EXPECT_EQ(classes[U' '], kSpace);
  EXPECT_EQ(classes[U'_'], kOther);
  EXPECT_EQ(classes[0x4E2D], kLetter);
  EXPECT_EQ(classes[0x0301], kOther);   // a combining mark
  EXPECT_EQ(classes[0x00BD], kNumber);  // one half
  EXPECT_EQ(classes[0x3000], kSpace);
  EXPECT_EQ(classes[0x180E], kOther);    // no white space since Unicode 6.3
  EXPECT_EQ(classes[0x1C89], kLetter);   // of Unicode 16
  EXPECT_EQ(classes[0x2EBF0], kLetter);  // of Unicode 15.1
  EXPECT_EQ(classes[kMalformed], kOther);
  for (const char32_t word : {U'a', U'7', U'_', char32_t{0x0301}, char32_t{0x200D}, char32_t{0x24B6},
                              char32_t{0x116DC}, char32_t{0x1C89}})  // the last two are of Unicode 16
    EXPECT_TRUE(is_word(word)) << static_cast<uint32_t>(word);
  for (const char32_t other : {U' ', U'-', char32_t{0x00BD}, char32_t{0x2581}, kMalformed})
    EXPECT_FALSE(is_word(other)) << static_cast<uint32_t>(other);
}

TEST(Unicode, ComposesAroundWhatIsNoText) {
  EXPECT_EQ(nfc("plain"), "plain");
  EXPECT_EQ(nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(nfc("\u212B"), "\u00C5");        // the Angstrom sign is A with a ring
  EXPECT_EQ(nfc("\u1100\u1161"), "\uAC00");  // Hangul
  EXPECT_EQ(nfc("e\xFF\u0301 e\u0301\xE2\x82"), "e\xFF\u0301 \u00E9\xE2\x82");  // stays where it is
  EXPECT_EQ(nfc(std::string_view("\0e\u0301", 4)), std::string_view("\0\u00E9", 3));
  EXPECT_EQ(nfc(""), "");
}

TEST(Unicode, ComposesAsUnicodeNineDid) {
  EXPECT_EQ(nfc("a\u0301\u0316"), "\u00E1\u0316");                 // 220 goes before 230
  EXPECT_EQ(nfc("a\u0301\u08D3"), "\u00E1\u08D3");                 // 220 since Unicode 11: stays
  EXPECT_EQ(nfc("a\u08D3\u0301"), "a\u08D3\u0301");                // and blocks
  EXPECT_EQ(nfc("\U00011935\U00011930"), "\U00011935\U00011930");  // composes since Unicode 13
  EXPECT_EQ(nfc("e\u0301\U0001E4EF\u0301\u0316"), "\u00E9\U0001E4EF\u0316\u0301");  // each side for itself
}

TEST(Unicode, ComposesAsUtf8procDoes) {
  // Letters, Hangul, marks of eight classes, and ones (U+0F73, U+0F75, U+0F81) that are none but come apart
  // into marks.
  static constexpr char32_t kParts[] = {U'a',   U'e',   0xE9,   0x1EA5, 0x1100, 0x1161, 0x11A8, 0x0301,
                                        0x0302, 0x0323, 0x0316, 0x0334, 0x0345, 0x0344, 0x05B0, 0x0F71,
                                        0x0F72, 0x0F73, 0x0F75, 0x0F81, 0x0FB2, 0x2126, 0x20D0, 0x1F600};
  std::mt19937 random(9);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t left = random() % (round % 100 == 0 ? 300 : 12); left > 0; --left)
      append_utf8(text, kParts[random() % std::size(kParts)]);
    ASSERT_EQ(nfc(text), composed_by_utf8proc(text)) << text;
  }
}

// A run of marks out of order, and one of characters that come apart into such, cost about what the same run
// in order does. A sort by exchanges would take thousands of times as long.
TEST(Unicode, RunsOfMarksAreOrderedInTimeLikeTheirLength) {
  std::string upper, lower, parts, ordered;
  for (int i = 0; i < 20000; ++i) {
    upper += "\u0301";
    lower += "\u0323";
    parts += "\u0F73";
    ordered += "\u0F71\u0F71";
  }
  EXPECT_EQ(nfc("!" + upper + lower), "!" + lower + upper);
  EXPECT_LT(cpu_seconds("!" + upper + lower), 50 * cpu_seconds("!" + lower + upper));
  EXPECT_LT(cpu_seconds("!" + parts), 50 * cpu_seconds("!" + ordered));
}

TEST(ByteAlphabet, IsOneToOne) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::string written = to_byte_alphabet(all);
  EXPECT_EQ(from_byte_alphabet(written), all);
  EXPECT_EQ(to_byte_alphabet(" \n"), "\u0120\u010A");
  EXPECT_EQ(from_byte_alphabet("a b"), std::nullopt);  // a plain space is not of the alphabet
  EXPECT_EQ(from_byte_alphabet("\u0144"), std::nullopt);
  EXPECT_EQ(from_byte_alphabet("\xFF"), std::nullopt);
}

}  // namespace retort::data
