#include "data/tokenizers/byte_alphabet.h"

#include "data/tokenizers/unicode.h"

namespace retort::data {
namespace {

constexpr int kFirstMoved = 0x100, kMoved = 68;

bool printable(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

}  // namespace

const std::array<std::string, 256>& byte_alphabet() {
  static const std::array<std::string, 256> table = [] {
    std::array<std::string, 256> out;
    int next = kFirstMoved;
    for (int byte = 0; byte < 256; ++byte)
      append_utf8(out[static_cast<size_t>(byte)], static_cast<char32_t>(printable(byte) ? byte : next++));
    return out;
  }();
  return table;
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += byte_alphabet()[static_cast<unsigned char>(byte)];
  return out;
}

std::optional<std::string> from_byte_alphabet(std::string_view token) {
  static const std::array<unsigned char, kMoved> moved = [] {
    std::array<unsigned char, kMoved> out{};
    size_t next = 0;
    for (int byte = 0; byte < 256; ++byte)
      if (!printable(byte)) out[next++] = static_cast<unsigned char>(byte);
    return out;
  }();
  std::string out;
  for (const char *at = token.data(), *end = at + token.size(); at < end;) {
    const Character c = decode_utf8(at, end);
    at += c.bytes;
    if (c.value < kFirstMoved && printable(static_cast<int>(c.value)))
      out += static_cast<char>(c.value);
    else if (c.value >= kFirstMoved && c.value < kFirstMoved + kMoved)
      out += static_cast<char>(moved[c.value - kFirstMoved]);
    else
      return std::nullopt;
  }
  return out;
}

}  // namespace retort::data
