#include "data/tokenizers/utf8.h"

#include "core/error.h"

namespace retort::data {

Utf8Part first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true, false};
  const size_t length = lead >= 0xC2 && lead < 0xE0   ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  if (length == 0) return {1, false, false};
  // The second byte also keeps out long forms, surrogates and what lies beyond U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) return {i, false, false};
  }
  return {length, true, false};
}

void check_utf8(std::string& text, std::string_view rule, std::string_view where) {
  if (rule == "keep") return;
  std::string clean;
  size_t kept = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Part character = first_character(std::string_view(text).substr(at));
    if (!character.valid) {
      check<DataError>(rule == "replace", "{}: must be UTF-8, got byte 0x{:02x} at {}", where,
                       static_cast<unsigned char>(text[at]), at);
      clean.append(text, kept, at - kept).append(kReplacement);
      kept = at + character.bytes;
    }
    at += character.bytes;
  }
  if (kept > 0) text = clean.append(text, kept);
}

}  // namespace retort::data
