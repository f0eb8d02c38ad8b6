#include "artifacts/printed_options.h"

#include <charconv>
#include <cmath>
#include <optional>
#include <vector>

#include "core/error.h"

namespace retort::artifacts {
namespace {

using formats::Json;

constexpr size_t kDeepest = 32;

struct Line {
  size_t number = 0;  // from 1
  size_t indent = 0;  // of the key
  bool item = false;  // begins a list's item
  std::string_view key, value;
};

class Parser {
 public:
  Parser(std::string_view text, const std::string& source) : source_(source) {
    for (size_t number = 1; !text.empty(); ++number) {
      const size_t end = std::min(text.find('\n'), text.size());
      lines_.push_back(line_of(text.substr(0, end), number));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  }

  Json parse() {
    Json out = lines_.empty() ? Json::object() : object(0);
    if (next_ < lines_.size()) refuse(lines_[next_].number, "is indented as no key before it");
    return out;
  }

 private:
  [[noreturn]] void refuse(size_t number, std::string_view why) const {
    fail<DataError>("{}:{}: {}", source_, number, why);
  }

  Line line_of(std::string_view text, size_t number) const {
    Line line{number, std::min(text.find_first_not_of(' '), text.size()), false, {}, {}};
    text.remove_prefix(line.indent);
    if (text.starts_with("- ")) {
      line.item = true;
      line.indent += 2;
      text.remove_prefix(2);
    }
    const size_t colon = text.find(':');
    if (colon == 0 || colon == text.npos) refuse(number, "must be a key and its value");
    line.key = text.substr(0, colon);
    if (line.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != line.key.npos)
      refuse(number, "must begin with a key");
    line.value = text.substr(colon + 1);
    if (line.value.empty()) return line;
    if (line.value.size() < 2 || line.value[0] != ' ') refuse(number, "must have one space before its value");
    line.value.remove_prefix(1);
    return line;
  }

  bool continues(size_t indent, bool item) const {
    return next_ < lines_.size() && lines_[next_].indent == indent && lines_[next_].item == item;
  }

  // The lines of one section; the first may begin an item.
  Json object(size_t indent) {
    if (indent > 2 * kDeepest) refuse(lines_[next_].number, "is nested too deeply");
    Json out = Json::object();
    do {
      const Line& line = lines_[next_++];
      if (line.indent != indent) refuse(line.number, "is indented as no key before it");
      if (out.find(line.key) != out.end()) refuse(line.number, "names a key twice");
      out[std::string(line.key)] = line.value.empty() ? below(indent) : value(line);
    } while (continues(indent, false));
    return out;
  }

  // What a key without a value holds.
  Json below(size_t indent) {
    if (continues(indent + 2, false)) return object(indent + 2);
    if (!continues(indent + 4, true)) return Json::object();
    Json out = Json::array();
    while (continues(indent + 4, true)) out.push_back(object(indent + 4));
    return out;
  }

  Json value(const Line& line) const {
    std::string_view rest = line.value;
    if (rest[0] != '[') {
      Json one = scalar(rest, line.number, "");
      if (!rest.empty()) refuse(line.number, "has more than a value");
      return one;
    }
    rest.remove_prefix(1);
    Json out = Json::array();
    while (!rest.starts_with(']')) {
      out.push_back(scalar(rest, line.number, ",]"));
      if (rest.starts_with(", "))
        rest.remove_prefix(2);
      else if (!rest.starts_with(']'))
        refuse(line.number, "has a list without its end");
    }
    if (rest != "]") refuse(line.number, "has more than a list");
    return out;
  }

  // Takes one value from the front of `rest`; a word ends before one of `ends`.
  Json scalar(std::string_view& rest, size_t number, std::string_view ends) const {
    if (rest.starts_with('"')) return quoted(rest, number);
    const std::string_view word = rest.substr(0, std::min(rest.find_first_of(ends), rest.size()));
    rest.remove_prefix(word.size());
    if (word.empty() || word.find_first_of(" \"'[]{},&*#!|>%@`\t") != word.npos)
      refuse(number, "must have a plain or a quoted value");
    if (word == "true" || word == "false") return word == "true";
    if (auto integer = number_in<int64_t>(word)) return *integer;
    if (auto real = number_in<double>(word)) return *real;
    return std::string(word);
  }

  template <class T>
  static std::optional<T> number_in(std::string_view word) {
    T value{};
    const bool begins = word[0] == '-' || (word[0] >= '0' && word[0] <= '9');  // "inf" is a word
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool whole = begins && error == std::errc() && end == word.data() + word.size();
    return whole ? std::optional(value) : std::nullopt;
  }

  Json quoted(std::string_view& rest, size_t number) const {
    std::string out;
    size_t i = 1;
    for (; i < rest.size() && rest[i] != '"'; ++i) {
      if (rest[i] != '\\') {
        out += rest[i];
        continue;
      }
      const char escape = ++i < rest.size() ? rest[i] : '\0';
      if (escape == 'n')
        out += '\n';
      else if (escape == '"' || escape == '\\')
        out += escape;
      else
        out += escape == 'x' ? byte_at(rest, i, number) : (refuse(number, "has an unknown escape"), '\0');
    }
    if (i >= rest.size()) refuse(number, "has text without its end");
    rest.remove_prefix(i + 1);
    return out;
  }

  // The two digits after \x; moves `i` to the last of them.
  char byte_at(std::string_view rest, size_t& i, size_t number) const {
    unsigned char byte = 0;
    const std::string_view digits = rest.substr(std::min(i + 1, rest.size()), 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2)
      refuse(number, "has an unknown escape");
    i += 2;
    return static_cast<char>(byte);
  }

  const std::string& source_;
  std::vector<Line> lines_;
  size_t next_ = 0;
};

}  // namespace

Json parse_printed(std::string_view text, const std::string& source) { return Parser(text, source).parse(); }

}  // namespace retort::artifacts
