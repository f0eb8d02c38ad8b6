#include "eval/python_text.h"

#include <algorithm>
#include <charconv>

#include "data/tokenizers/unicode.h"

namespace retort::eval {
namespace {

// Python's white space has four separators more than Unicode's.
bool is_space(char32_t character) {
  return (character >= 0x1C && character <= 0x1F) ||
         data::character_classes()[character] == data::CharacterClass::kSpace;
}

template <class Visit>
void for_characters(std::string_view text, const Visit& visit) {
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    const data::Character character = data::decode_utf8(at, end);
    visit(character);
    at += character.bytes;
  }
}

// A list of literals, read from left to right; `ok_` falls when the text is no such thing.
class ListReader {
 public:
  explicit ListReader(std::string_view text) : text_(text) {}

  std::optional<std::vector<std::string>> read() {
    std::vector<std::string> out;
    const char close = take('[') ? ']' : take('(') ? ')' : '\0';
    if (close == '\0') return std::nullopt;
    skip();
    while (ok_ && !take(close)) {
      out.push_back(at_ < text_.size() && (text_[at_] == '\'' || text_[at_] == '"') ? quoted() : bare(close));
      skip();
      if (!take(',') && (at_ >= text_.size() || text_[at_] != close)) ok_ = false;
      skip();
    }
    return ok_ && at_ == text_.size() ? std::optional(std::move(out)) : std::nullopt;
  }

 private:
  bool take(char c) {
    const bool there = at_ < text_.size() && text_[at_] == c;
    at_ += there;
    return there;
  }
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  // A number, True, False or None.
  std::string bare(char close) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != close && text_[at_] != ' ') ++at_;
    const std::string out(text_.substr(begin, at_ - begin));
    double number = 0;
    const auto [end, error] = std::from_chars(out.data(), out.data() + out.size(), number);
    const bool is_number = error == std::errc() && end == out.data() + out.size();
    ok_ = ok_ && (is_number || out == "True" || out == "False" || out == "None");
    return out;
  }

  std::string quoted() {
    const char quote = text_[at_++];
    std::string out;
    while (at_ < text_.size() && text_[at_] != quote) {
      if (text_[at_] != '\\')
        out += text_[at_++];
      else
        escape(out);
    }
    ok_ = ok_ && take(quote);
    return out;
  }

  void escape(std::string& out) {
    ++at_;
    const char kind = at_ < text_.size() ? text_[at_++] : '\0';
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (digits > 0) {
      uint32_t value = 0;
      const std::string_view hex = text_.substr(std::min(at_, text_.size()), digits);
      const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
      if (error != std::errc() || end != hex.data() + digits || value > 0x10FFFF) ok_ = false;
      if (ok_) data::append_utf8(out, value);
      at_ += hex.size();
      return;
    }
    constexpr std::string_view kNames = "ntr\\'\"0ab", kValues = "\n\t\r\\'\"\0\a\b";
    const size_t known = kNames.find(kind);
    if (known == std::string_view::npos)
      ok_ = false;
    else
      out += std::string_view(kValues.data(), kNames.size())[known];
  }

  std::string_view text_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace

std::string_view without_trailing_space(std::string_view text) {
  size_t kept = 0, at = 0;
  for_characters(text, [&](const data::Character& character) {
    at += character.bytes;
    if (!is_space(character.value)) kept = at;
  });
  return text.substr(0, kept);
}

std::string_view without_outer_space(std::string_view text) {
  text = without_trailing_space(text);
  size_t space = 0;
  bool outer = true;
  for_characters(text, [&](const data::Character& character) {
    outer = outer && is_space(character.value);
    if (outer) space += character.bytes;
  });
  return text.substr(space);
}

int64_t count_characters(std::string_view text) {
  int64_t count = 0;
  for_characters(text, [&](const data::Character&) { ++count; });
  return count;
}

int64_t count_words(std::string_view text) {
  int64_t count = 1;
  bool before = false;
  for_characters(text, [&](const data::Character& character) {
    const bool space = is_space(character.value);
    count += space && !before;
    before = space;
  });
  return count;
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::optional<std::vector<std::string>> read_list(std::string_view text) { return ListReader(text).read(); }

}  // namespace retort::eval
