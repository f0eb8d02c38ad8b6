// Bytes that should be UTF-8 (Unicode 15, section 3.9: no surrogates, no long forms, nothing beyond
// U+10FFFF). Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace retort::data {

inline constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// The first character of a text that is not empty: its bytes; or, where there is none, those of the maximal
// part of one that Unicode recommends to replace by one U+FFFD.
struct Utf8Part {
  size_t bytes;
  bool valid;
  bool open;  // not valid, but more bytes might make it so
};
Utf8Part first_character(std::string_view text);

// Applies a rule to bytes that are no UTF-8: "keep", "replace" by U+FFFD, or "refuse" (DataError naming
// `where` and the byte).
void check_utf8(std::string& text, std::string_view rule, std::string_view where);

}  // namespace retort::data
