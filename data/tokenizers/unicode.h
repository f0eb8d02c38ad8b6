// UTF-8 and what tokenizers ask of a character. Text may hold any bytes: one that begins no well-formed
// character counts alone, as kMalformed, which is neither letter, number nor white space (as U+FFFD, its
// usual replacement). Pure functions; the tables are made once and never change. Classes: \p{L}, \p{N} and \w
// (Alphabetic, M, Nd, Pc and Join_Control: Unicode TS #18, Annex C) of Unicode 16, from
// data/tokenizers/unicode_classes.inc; \s is the property White_Space. Normalization Form C is that of Unicode 9. All as
// in tokenizers 0.23. nfc() takes time in proportion to the text, but for runs of marks, which are sorted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace retort::data {

inline constexpr char32_t kMalformed = 0x110000;

struct Character {
  char32_t value;
  uint32_t bytes;
};

enum class CharacterClass : uint8_t { kOther, kLetter, kNumber, kSpace };

// By code point, kMalformed included: 0x110001 entries.
const CharacterClass* character_classes();
bool is_word(char32_t character);

// The character that begins at `at` < `end`.
inline Character decode_utf8(const char* at, const char* end) {
  const auto byte = [at](size_t i) { return static_cast<unsigned char>(at[i]); };
  const auto tail = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t size = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
  if (size == 1 || static_cast<size_t>(end - at) < size) return {kMalformed, 1};
  for (size_t i = 1; i < size; ++i)
    if ((byte(i) & 0xC0) != 0x80) return {kMalformed, 1};
  char32_t value = 0;
  if (size == 2) return {(lead & 0x1F) << 6 | tail(1), 2};
  if (size == 3) {
    value = (lead & 0x0F) << 12 | tail(1) << 6 | tail(2);
    return value < 0x800 || (value >= 0xD800 && value < 0xE000) ? Character{kMalformed, 1}
                                                                : Character{value, 3};
  }
  value = (lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
  return value < 0x10000 || value > 0x10FFFF ? Character{kMalformed, 1} : Character{value, 4};
}

void append_utf8(std::string& text, char32_t character);

// Normalization Form C of the well-formed stretches; other bytes stay as they are. Marks and compositions
// newer than Unicode 9 are left alone, though utf8proc knows them: a vocabulary's ids were made without them.
std::string nfc(std::string_view text);

}  // namespace retort::data
