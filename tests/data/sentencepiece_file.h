// SentencePiece models of a few pieces, written field by field.
#pragma once

#include <cstring>
#include <string>

namespace retort::testing {

// A protobuf's fields: number and kind, then the content with its length, or a number.
inline std::string varint(size_t value) {
  std::string out;
  for (; value > 0x7F; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  return out + static_cast<char>(value);
}
inline std::string field(size_t number, const std::string& content) {
  return varint(number << 3 | 2) + varint(content.size()) + content;
}
inline std::string number(size_t field, size_t value) { return varint(field << 3) + varint(value); }
inline std::string piece(const std::string& text, float score, int type) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &score, 4);
  return field(1, field(1, text) + static_cast<char>(2 << 3 | 5) + bytes + number(3, type));
}
// "▁▁" and "<m>" are user-defined. `prefix`: a space before a text.
inline std::string user_defined_model(bool prefix) {
  std::string out = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) +
                    piece("\u2581\u2581", 0, 4) + piece("<m>", 0, 4);
  float score = -5;
  for (const char* text : {"\u2581a", "ab", "\u2581ab", "a", "\u2581", "b"}) out += piece(text, score--, 1);
  return out + field(2, number(3, 2)) + field(3, number(3, prefix ? 1 : 0) + number(4, 0));
}
inline std::string small_model(int type = 2) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581", -5, 1) +
         piece("a", -6, 1) + piece("b", -7, 1) + piece("ab", -1, 1) + piece("\u2581ab", -2, 1) +
         field(2, number(3, type) + number(41, 1) + number(42, 2)) + field(3, number(4, 0));
}

}  // namespace retort::testing
