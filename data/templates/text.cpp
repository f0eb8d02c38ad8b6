#include "data/templates/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "data/templates/raised.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

Character at(std::string_view bytes, size_t place) {
  return decode_utf8(bytes.data() + place, bytes.data() + bytes.size());
}

// The character that ends at `end`.
Character before(std::string_view bytes, size_t end) {
  for (size_t back = 1; back <= 4 && back <= end; ++back)
    if (const Character found = at(bytes.substr(0, end), end - back);
        found.bytes == back && found.value != kMalformed)
      return found;
  return {kMalformed, 1};
}

bool in_set(char32_t character, std::string_view one, const std::string_view* set) {
  if (set == nullptr) return is_space(character);
  return set->find(one) != std::string_view::npos;
}

constexpr size_t kWindow = size_t{1} << 16;

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

// A character as repr() writes it; `bytes` are its own.
void add_quoted_character(Buffer& out, char32_t c, std::string_view bytes, char quote) {
  if (c == static_cast<char32_t>(quote) || c == '\\')
    out.add(fmt::format("\\{}", bytes));
  else if (c == '\n' || c == '\r' || c == '\t')
    out.add(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
  else if (is_printable(c))
    out.add(bytes);
  else if (c >= kMalformed)
    out.add(fmt::format("\\udc{:02x}", static_cast<unsigned char>(bytes[0])));  // as surrogateescape
  else
    out.add(c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
            : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                          : fmt::format("\\U{:08x}", static_cast<uint32_t>(c)));
}

}  // namespace

bool is_ascii(std::string_view bytes) {
  size_t i = 0;
  for (uint64_t word; i + 8 <= bytes.size(); i += 8) {
    std::memcpy(&word, bytes.data() + i, 8);
    if ((word & 0x8080808080808080u) != 0) return false;
  }
  for (; i < bytes.size(); ++i)
    if (static_cast<unsigned char>(bytes[i]) >= 0x80) return false;
  return true;
}

size_t hash_text(std::string_view bytes) { return std::hash<std::string_view>()(bytes); }

int64_t characters(std::string_view bytes, bool ascii) {
  if (ascii) return static_cast<int64_t>(bytes.size());
  int64_t count = 0;
  for (size_t i = 0; i < bytes.size(); ++count) i += at(bytes, i).bytes;
  return count;
}

size_t byte_of(std::string_view bytes, int64_t index, bool ascii) {
  if (ascii) return std::min(static_cast<size_t>(index), bytes.size());
  size_t i = 0;
  for (; index > 0 && i < bytes.size(); --index) i += at(bytes, i).bytes;
  return i;
}

char32_t first_of(std::string_view bytes, size_t& size) {
  const Character found = at(bytes, 0);
  size = found.bytes;
  return found.value;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_line_break(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  if (c >= kMalformed) return false;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_cased(char32_t c) {
  if (c >= kMalformed) return false;
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
         utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0 ||
         utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0;
}

std::string_view strip(std::string_view bytes, const std::string_view* set, bool left, bool right) {
  while (left && !bytes.empty()) {
    const Character first = at(bytes, 0);
    if (!in_set(first.value, bytes.substr(0, first.bytes), set)) break;
    bytes.remove_prefix(first.bytes);
  }
  while (right && !bytes.empty()) {
    const Character last = before(bytes, bytes.size());
    if (!in_set(last.value, bytes.substr(bytes.size() - last.bytes), set)) break;
    bytes.remove_suffix(last.bytes);
  }
  return bytes;
}

// In windows that grow, so that a place nearby costs little. memmem compares at most 256 bytes at a place.
size_t find(Heap& heap, std::string_view bytes, std::string_view part, size_t from) {
  for (size_t window = 512; from + part.size() <= bytes.size();
       from += window, window = std::min(2 * window, kWindow)) {
    const std::string_view here = bytes.substr(from, window + part.size());
    heap.step(1 + here.size() * std::min<size_t>(part.size(), 256) / 32);
    if (const void* found = memmem(here.data(), here.size(), part.data(), part.size()))
      return static_cast<size_t>(static_cast<const char*>(found) - bytes.data());
  }
  return std::string_view::npos;
}

size_t rfind(Heap& heap, std::string_view bytes, std::string_view part) {
  if (part.size() > bytes.size()) return std::string_view::npos;
  size_t left = bytes.size() - part.size() + 1;  // places
  for (size_t window = 512; left > 0; window = std::min(2 * window, kWindow)) {
    const size_t first = left > window ? left - window : 0;
    heap.step(1 + (left - first) * part.size() / 32);
    const size_t found = bytes.substr(first, left - first - 1 + part.size()).rfind(part);
    if (found != std::string_view::npos) return first + found;
    left = first;
  }
  return std::string_view::npos;
}

void add_quoted(Buffer& out, std::string_view bytes) {
  const char quote = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos ? '"' : '\'';
  out.add(quote);
  for (size_t i = 0; i < bytes.size();) {
    const Character character = at(bytes, i);
    add_quoted_character(out, character.value, bytes.substr(i, character.bytes), quote);
    i += character.bytes;
  }
  out.add(quote);
}

std::string in_quotes(std::string_view bytes) {
  constexpr size_t kShown = 1000;
  Heap heap{TemplateLimits{}};
  Buffer out(heap);
  add_quoted(out, bytes.substr(0, kShown));
  return std::string(out.view()) + (bytes.size() > kShown ? "..." : "");
}

void add_escaped(Buffer& out, std::string_view bytes) {
  static constexpr std::pair<char, std::string_view> kNames[] = {
      {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
  for (size_t i = 0; i < bytes.size();) {
    const size_t mark = std::min(bytes.find_first_of("&<>\"'", i), bytes.size());
    out.add(bytes.substr(i, mark - i));
    for (const auto& [c, name] : kNames)
      if (mark < bytes.size() && bytes[mark] == c) out.add(name);
    i = mark + 1;
  }
}

}  // namespace retort::data::jinja
