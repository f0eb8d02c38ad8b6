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

void append(std::string& out, char32_t character) { append_utf8(out, character); }

bool in_set(char32_t character, std::string_view one, const std::string_view* set) {
  if (set == nullptr) return is_space(character);
  return set->find(one) != std::string_view::npos;
}

// Knuth, Morris and Pratt: for parts so long that looking at each place could take their product.
class LongPart {
 public:
  explicit LongPart(std::string_view part) : part_(part), border_(part.size(), 0) {
    for (size_t i = 1, k = 0; i < part.size(); ++i) {
      while (k > 0 && part[i] != part[k]) k = border_[k - 1];
      if (part[i] == part[k]) ++k;
      border_[i] = static_cast<uint32_t>(k);
    }
  }
  // The first place, or the last.
  size_t find(std::string_view bytes, bool last) const {
    size_t found = std::string_view::npos;
    for (size_t i = 0, k = 0; i < bytes.size(); ++i) {
      while (k > 0 && (k == part_.size() || bytes[i] != part_[k])) k = border_[k - 1];
      if (bytes[i] == part_[k]) ++k;
      if (k == part_.size()) found = i + 1 - k;
      if (found != std::string_view::npos && !last) break;
    }
    return found;
  }

 private:
  std::string_view part_;
  std::vector<uint32_t> border_;
};

constexpr size_t kShort = 16, kLong = size_t{1} << 20;

// Made piece by piece, so that a long text never lies twice in memory.
class Chunks {
 public:
  explicit Chunks(Buffer& out) : out_(out) {}
  std::string& text() {
    if (text_.size() > 4096) flush();
    return text_;
  }
  void flush() {
    out_.add(text_);
    text_.clear();
  }

 private:
  Buffer& out_;
  std::string text_;
};

// --- case ----------------------------------------------------------------------------------------------

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
char32_t simple(utf8proc_int32_t (*change)(utf8proc_int32_t), char32_t c) {
  return static_cast<char32_t>(change(static_cast<utf8proc_int32_t>(c)));
}

std::u32string decomposed(char32_t c, bool compatible) {
  utf8proc_int32_t parts[32];
  const auto option = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32, option, nullptr);
  if (count < 1 || count > 32) return {c};
  return {parts, parts + count};
}

constexpr char32_t kIota = 0x345;  // written below a vowel, and behind it as a capital

// Characters without a capital of their own: SpecialCasing.txt, by the rules that its entries follow.
std::u32string special_upper(char32_t c, bool title) {
  if (c == 0xDF) return title ? U"Ss" : U"SS";
  std::u32string parts = decomposed(c, true);
  if (parts.size() < 2) return {c};
  if (parts.back() == kIota) {  // what stands over the vowel stays with it
    const bool mark = title;
    parts.pop_back();
    std::string vowel;
    for (const char32_t part : parts) append(vowel, simple(utf8proc_toupper, part));
    const std::string composed = nfc(vowel);
    std::u32string out;
    for (size_t i = 0; i < composed.size();) {
      const Character character = at(composed, i);
      out += character.value;
      i += character.bytes;
    }
    return out + (mark ? kIota : U'\u0399');
  }
  bool first = true;
  for (char32_t& part : parts) {
    const char32_t upper = simple(utf8proc_toupper, part);
    if (!title || first) {
      if (upper != part) first = false;
      part = upper;
    }
  }
  return parts;
}

void append_upper(std::string& out, char32_t c, bool title) {
  const char32_t upper = simple(title ? utf8proc_totitle : utf8proc_toupper, c);
  const auto kind = category(c);
  const bool special = c == 0xDF || (upper == c && kind == UTF8PROC_CATEGORY_LL) ||
                       (!title && kind == UTF8PROC_CATEGORY_LT && decomposed(c, false).back() == kIota) ||
                       (!title && c >= 0x1F80 && c <= 0x1FFC && decomposed(c, false).back() == kIota);
  if (!special || c < 0x80) return append(out, upper);
  for (const char32_t part : special_upper(c, title)) append(out, part);
}

bool case_ignorable(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::u32string_view(U"'.:^`\u00B7\u2018\u2019\u2024\u2027").find(c) != std::u32string_view::npos;
  }
}

// A sigma that ends a word is written otherwise.
bool final_sigma(std::string_view bytes, size_t place) {
  size_t back = place;
  char32_t c = 0;
  do {
    if (back == 0) return false;
    const Character found = before(bytes, back);
    back -= found.bytes;
    c = found.value;
  } while (case_ignorable(c));
  if (!is_cased(c)) return false;
  for (size_t next = place + 2; next < bytes.size();) {
    const Character found = at(bytes, next);
    if (!case_ignorable(found.value)) return !is_cased(found.value);
    next += found.bytes;
  }
  return true;
}

void append_lower(std::string& out, char32_t c, std::string_view bytes, size_t place) {
  if (c == 0x130)
    out += "i\u0307";
  else if (c == 0x3A3)
    append(out, final_sigma(bytes, place) ? 0x3C2 : 0x3C3);
  else
    append(out, simple(utf8proc_tolower, c));
}

std::string folded(std::string_view one) {
  utf8proc_uint8_t* made = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(one.data()),
                                 static_cast<utf8proc_ssize_t>(one.size()), &made, UTF8PROC_CASEFOLD);
  std::string out(size < 0 ? std::string(one)
                           : std::string(reinterpret_cast<char*>(made), static_cast<size_t>(size)));
  std::free(made);
  return out;
}

char quote_of(std::string_view bytes) {
  return bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos ? '"' : '\'';
}

// The character at a place as repr() writes it; returns its bytes.
size_t append_quoted(std::string& out, std::string_view bytes, size_t place, char quote) {
  const Character character = at(bytes, place);
  const char32_t c = character.value;
  if (c == static_cast<char32_t>(quote) || c == '\\')
    (out += '\\') += static_cast<char>(c);
  else if (c == '\n' || c == '\r' || c == '\t')
    (out += '\\') += c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
  else if (is_printable(c))
    out += bytes.substr(place, character.bytes);
  else if (c >= kMalformed)
    out += fmt::format("\\udc{:02x}", static_cast<unsigned char>(bytes[place]));  // as surrogateescape
  else
    out += c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
           : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                         : fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
  return character.bytes;
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

size_t find(std::string_view bytes, std::string_view part, size_t from) {
  if (part.size() <= kShort || from > bytes.size()) return bytes.find(part, from);
  const std::string_view rest = bytes.substr(from);
  if (part.size() > rest.size()) return std::string_view::npos;
  size_t found = std::string_view::npos;
  if (part.size() <= kLong) {
    found = LongPart(part).find(rest, false);
  } else if (const void* at =
                 memmem(rest.data(), rest.size(), part.data(), part.size())) {  // linear for such parts
    found = static_cast<size_t>(static_cast<const char*>(at) - rest.data());
  }
  return found == std::string_view::npos ? found : from + found;
}

size_t rfind(std::string_view bytes, std::string_view part) {
  if (part.size() <= kShort) return bytes.rfind(part);
  if (part.size() > bytes.size()) return std::string_view::npos;
  if (part.size() > kLong) raise("looks from the right for a text longer than {} bytes, the limit", kLong);
  return LongPart(part).find(bytes, true);
}

void add_case(Buffer& out, std::string_view bytes, Case wanted) {
  Chunks chunks(out);
  bool inside = false;  // of a word
  for (size_t i = 0; i < bytes.size();) {
    const Character character = at(bytes, i);
    const char32_t c = character.value;
    const std::string_view one = bytes.substr(i, character.bytes);
    const bool upper = c < kMalformed && utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0;
    std::string& text = chunks.text();
    if (c >= kMalformed)
      text += one;
    else if (wanted == Case::kFold)
      text += folded(one);
    else if (wanted == Case::kUpper || (wanted == Case::kSwap && !upper))
      append_upper(text, c, false);
    else if (wanted == Case::kLower || (wanted == Case::kSwap && upper))
      append_lower(text, c, bytes, i);
    else if (wanted == Case::kTitle ? !inside : i == 0)
      append_upper(text, c, true);
    else
      append_lower(text, c, bytes, i);
    inside = is_cased(c);
    i += character.bytes;
  }
  chunks.flush();
}

void add_quoted(Buffer& out, std::string_view bytes) {
  const char quote = quote_of(bytes);
  Chunks chunks(out);
  chunks.text() += quote;
  for (size_t i = 0; i < bytes.size();) i += append_quoted(chunks.text(), bytes, i, quote);
  chunks.text() += quote;
  chunks.flush();
}

std::string in_quotes(std::string_view bytes) {
  constexpr size_t kShown = 1000;
  const char quote = quote_of(bytes);
  std::string out(1, quote);
  for (size_t i = 0; i < bytes.size();) {
    i += append_quoted(out, bytes, i, quote);
    if (out.size() > kShown) return out + "...";
  }
  return out += quote;
}

void add_escaped(Buffer& out, std::string_view bytes) {
  Chunks chunks(out);
  for (const char c : bytes) {
    std::string& text = chunks.text();
    switch (c) {
      case '&':
        text += "&amp;";
        break;
      case '<':
        text += "&lt;";
        break;
      case '>':
        text += "&gt;";
        break;
      case '"':
        text += "&#34;";
        break;
      case '\'':
        text += "&#39;";
        break;
      default:
        text += c;
    }
  }
  chunks.flush();
}

}  // namespace retort::data::jinja
