// The case of letters as Python's str changes it: Unicode's full mappings, whose exceptions (SpecialCasing.txt)
// follow from what characters decompose to.
#include <utf8proc.h>

#include "data/templates/text.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

constexpr char32_t kIota = 0x345;  // written below a vowel, and after it as a capital

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
char32_t simple(utf8proc_int32_t (*change)(utf8proc_int32_t), char32_t c) {
  return static_cast<char32_t>(change(static_cast<utf8proc_int32_t>(c)));
}

std::u32string decomposed(char32_t c) {
  utf8proc_int32_t parts[32];
  const auto option = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32, option, nullptr);
  if (count < 1 || count > 32) return {c};
  return {parts, parts + count};
}

// Of a letter that no single character is the capital of.
std::string special_upper(char32_t c, bool title) {
  if (c == 0xDF) return title ? "Ss" : "SS";
  std::u32string parts = decomposed(c);
  const bool iota = parts.back() == kIota;
  if (iota) parts.pop_back();
  std::string out;
  bool capital = false;  // of a title only the first letter is one
  for (const char32_t part : parts) {
    const char32_t upper = title && capital ? part : simple(utf8proc_toupper, part);
    capital |= upper != part;
    append_utf8(out, upper);
  }
  return iota ? nfc(out) + (title ? "\u0345" : "\u0399") : out;  // what is over the vowel stays with it
}

void add_upper(Buffer& out, char32_t c, bool title) {
  const char32_t upper = simple(title ? utf8proc_totitle : utf8proc_toupper, c);
  const bool iota = !title && c >= 0x1F80 && c <= 0x1FFC && decomposed(c).back() == kIota;
  const bool whole = title && c >= 0x10D0 && c <= 0x10FF;  // Georgian has no letters for titles
  const bool special =
      c >= 0x80 &&
      (iota || c == 0xDF || (upper == c && category(c) == UTF8PROC_CATEGORY_LL && decomposed(c).size() > 1));
  if (whole)
    out.add_character(c);
  else if (special)
    out.add(special_upper(c, title));
  else
    out.add_character(upper);
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

// Whether letters follow a place, past what is no letter within a word.
bool letters_follow(std::string_view bytes, size_t place) {
  for (size_t size = 0; place < bytes.size(); place += size) {
    const char32_t c = first_of(bytes.substr(place), size);
    if (!case_ignorable(c)) return is_cased(c);
  }
  return false;
}

}  // namespace

void add_case(Buffer& out, std::string_view bytes, Case wanted) {
  bool letter_before = false, word = false;  // word: the last that is not ignorable is a letter
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const char32_t c = first_of(bytes.substr(i), size);
    const bool first = wanted == Case::kTitle ? !letter_before : wanted == Case::kCapital && i == 0;
    const bool raises = wanted == Case::kSwap && (c >= kMalformed || !utf8proc_isupper(static_cast<int>(c)));
    if (c >= kMalformed)
      out.add(bytes.substr(i, size));
    else if (wanted == Case::kUpper || first || raises)
      add_upper(out, c, first);
    else if (c == 0x130)
      out.add("i\u0307");
    else if (c == 0x3A3)  // a sigma that ends a word is written otherwise
      out.add_character(word && !letters_follow(bytes, i + size) ? 0x3C2 : 0x3C3);
    else
      out.add_character(simple(utf8proc_tolower, c));
    letter_before = is_cased(c);
    if (!case_ignorable(c)) word = letter_before;
  }
}

}  // namespace retort::data::jinja
