#include "data/tokenizers/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <vector>

#include "core/error.h"

namespace retort::data {
namespace {

struct CodePointRange {
  char32_t first, last;
};
#include "data/tokenizers/unicode_classes.inc"
constexpr CodePointRange kSpaces[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                      {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                      {0x205F, 0x205F}, {0x3000, 0x3000}};

std::vector<CharacterClass> make_classes() {
  std::vector<CharacterClass> out(kMalformed + 1, CharacterClass::kOther);
  const auto mark = [&](const auto& ranges, CharacterClass value) {
    for (const CodePointRange& range : ranges)
      std::fill(out.begin() + range.first, out.begin() + range.last + 1, value);
  };
  mark(kLetters, CharacterClass::kLetter);
  mark(kNumbers, CharacterClass::kNumber);
  mark(kSpaces, CharacterClass::kSpace);
  return out;
}

bool is_among(std::span<const CodePointRange> ranges, char32_t character) {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), character,
                       [](char32_t c, const CodePointRange& range) { return c < range.first; });
  return after != ranges.begin() && character <= (after - 1)->last;
}

// All code points below U+0300 are in Form C already, and nothing composes with what precedes them.
bool plainly_composed(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0xCC) return false;
  return true;
}

auto combining_class(utf8proc_int32_t character) { return utf8proc_get_property(character)->combining_class; }

// The canonical ordering. utf8proc_map() has one too, which takes quadratic time in a run of marks.
void order_marks(std::vector<utf8proc_int32_t>& characters) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto at = characters.begin(); at != characters.end();) {
    const auto begin = std::find_if(at, characters.end(), is_mark);
    at = std::find_if_not(begin, characters.end(), is_mark);
    if (at - begin > 1)
      std::stable_sort(begin, at, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
  }
}

// `text`: well-formed.
void append_nfc(std::string& out, std::string_view text) {
  if (plainly_composed(text)) {
    out += text;
    return;
  }
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    const Character character = decode_utf8(at, end);
    std::array<utf8proc_int32_t, 8> parts;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character.value), parts.data(),
                                               std::ssize(parts), kOptions, nullptr);
    RETORT_ASSERT(count >= 0 && count <= std::ssize(parts));
    characters.insert(characters.end(), parts.begin(), parts.begin() + count);
    at += character.bytes;
  }
  order_marks(characters);
  const auto count = utf8proc_normalize_utf32(characters.data(), std::ssize(characters), kOptions);
  RETORT_ASSERT(count >= 0);
  characters.resize(static_cast<size_t>(count));
  for (const utf8proc_int32_t c : characters) append_utf8(out, static_cast<char32_t>(c));
}

}  // namespace

const CharacterClass* character_classes() {
  static const std::vector<CharacterClass> table = make_classes();
  return table.data();
}

bool is_word(char32_t character) { return is_among(kWords, character); }

void append_utf8(std::string& text, char32_t character) {
  const auto put = [&](char32_t byte) { text += static_cast<char>(byte); };
  const auto tail = [&](int shift) { put(0x80 | ((character >> shift) & 0x3F)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | (character >> 6)), tail(0);
  } else if (character < 0x10000) {
    put(0xE0 | (character >> 12)), tail(6), tail(0);
  } else {
    put(0xF0 | (character >> 18)), tail(12), tail(6), tail(0);
  }
}

std::string nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const char *begin = text.data(), *at = begin, *end = begin + text.size();
  while (at < end) {
    const Character character = decode_utf8(at, end);
    if (character.value == kMalformed || is_among(kNewToNfc, character.value)) {
      append_nfc(out, {begin, at});
      out.append(at, character.bytes);
      begin = at + character.bytes;
    }
    at += character.bytes;
  }
  append_nfc(out, {begin, end});
  return out;
}

}  // namespace retort::data
