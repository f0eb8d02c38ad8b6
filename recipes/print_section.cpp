#include "recipes/print_section.h"

#include <array>

namespace retort::recipes {
namespace {

// Text that could be taken for something else, or that has a character with a meaning in YAML, is quoted.
bool plain(const std::string& text) {
  constexpr std::string_view kSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-:";
  constexpr std::array<std::string_view, 16> kMeaning = {"true", "True", "TRUE", "false", "False", "FALSE",
                                                         "yes",  "no",   "on",   "off",   "null",  "Null",
                                                         "NULL", "~",    "Yes",  "No"};
  if (text.empty() || text.find_first_not_of(kSafe) != std::string::npos) return false;
  if (text.find_first_of("0123456789.+-:") == 0 &&
      text.find_first_not_of("0123456789.+-:eExX_") == std::string::npos)
    return false;
  if (text[0] == '-' || text[0] == ':' || text.back() == ':') return false;
  return std::find(kMeaning.begin(), kMeaning.end(), text) == kMeaning.end();
}

std::string printed(bool value) { return value ? "true" : "false"; }
std::string printed(int64_t value) { return fmt::format("{}", value); }
std::string printed(double value) { return fmt::format("{}", value); }  // shortest that reads back the same
std::string printed(const std::string& value) { return yaml_scalar(value); }

template <class T>
std::string printed(const std::vector<T>& values) {
  std::string out;
  for (const T& value : values) out += (out.empty() ? "" : ", ") + printed(value);
  return "[" + out + "]";
}

}  // namespace

std::string yaml_scalar(const std::string& text) {
  if (plain(text)) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (c == '\n')
      out += "\\n";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + "\"";
}

std::string print_value(const std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
                                           std::vector<int64_t>*, std::vector<double>*>& value) {
  return std::visit([](const auto* v) { return printed(*v); }, value);
}

void PrintSection::line(std::string_view key, std::string_view value) {
  const size_t indent = 2 * depths_.back();
  text_ += dash_ ? std::string(indent - 2, ' ') + "- " : std::string(indent, ' ');
  dash_ = false;
  text_ += fmt::format("{}:{}{}\n", key, value.empty() ? "" : " ", value);
}

void PrintSection::visit(Key key, Value value, const Check&) { line(key.name, print_value(value)); }

bool PrintSection::enter(Key key) {
  line(key.name, "");
  depths_.push_back(depths_.back() + 1);
  return true;
}

bool PrintSection::enter_optional(Key key, bool& present) { return present && enter(key); }

void PrintSection::leave() { depths_.pop_back(); }

size_t PrintSection::enter_list(Key key, size_t size) {
  line(key.name, size == 0 ? "[]" : "");
  return size;
}

bool PrintSection::enter_item(size_t) {
  depths_.push_back(depths_.back() + 2);
  dash_ = true;
  return true;
}

void PrintSection::leave_list() {}

}  // namespace retort::recipes
