#include "formats/untrusted.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace retort::formats {

std::string shown(std::string_view text) {
  constexpr size_t kLimit = 80;
  std::string out = "\"";
  for (const char c : text.substr(0, kLimit)) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x20 || code == 0x7f || code == '"' || code == '\\')
      out += fmt::format("\\x{:02x}", code);
    else
      out += c;
  }
  return out + (text.size() > kLimit ? fmt::format("...\" ({} bytes)", text.size()) : "\"");
}

std::optional<uint64_t> checked_product(std::span<const int64_t> shape, uint64_t unit) {
  int64_t padded = 1;
  if (unit > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  if (__builtin_mul_overflow(padded, static_cast<int64_t>(unit), &padded)) return std::nullopt;
  bool empty = unit == 0;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(padded, std::max<int64_t>(size, 1), &padded)) return std::nullopt;
    empty = empty || size == 0;
  }
  return empty ? 0 : static_cast<uint64_t>(padded);
}

}  // namespace retort::formats
