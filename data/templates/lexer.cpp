#include "data/templates/lexer.h"

#include <array>

#include "data/templates/text.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_sign(char c) { return c == '-' || c == '+'; }

// The end of digits with single underscores between; `at` where there are none.
size_t digits_end(std::string_view text, size_t at, bool (*accepts)(char)) {
  while (at < text.size() && accepts(text[at])) {
    ++at;
    if (at + 1 < text.size() && text[at] == '_' && accepts(text[at + 1])) ++at;
  }
  return at;
}

char closing(char bracket) { return bracket == '(' ? ')' : bracket == '[' ? ']' : '}'; }

}  // namespace

std::string Lexer::prepared(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

Place Lexer::place(size_t at) {
  while (place_at_ < at) {
    size_t size = 1;
    if (source_[place_at_] == '\n')
      ++place_.line, place_.column = 0;
    else
      first_of(source_.substr(place_at_), size);
    ++place_.column;
    place_at_ += size;
  }
  return place_;
}

Token Lexer::token(TokenKind kind, size_t begin, size_t end) {
  return {kind, source_.substr(begin, end - begin), place(begin)};
}

void Lexer::go_on(size_t at) {
  line_begins_ = at > at_ ? source_[at - 1] == '\n' : line_begins_;
  at_ = at;
}

size_t Lexer::skip_space(size_t at) const {
  size_t size = 0;
  while (at < source_.size() && is_space(first_of(source_.substr(at), size))) at += size;
  return at;
}

size_t Lexer::tag_end(size_t at, std::string_view mark, bool trims) const {
  const std::string_view rest = source_.substr(at);
  if (rest.starts_with('-') && rest.substr(1).starts_with(mark)) return skip_space(at + 1 + mark.size());
  if (trims && rest.starts_with('+') && rest.substr(1).starts_with(mark)) return at + 1 + mark.size();
  if (!rest.starts_with(mark)) return std::string_view::npos;
  const size_t end = at + mark.size();
  return trims && end < source_.size() && source_[end] == '\n' ? end + 1 : end;
}

std::string_view Lexer::stripped(std::string_view text, char sign, bool print) const {
  if (sign == '-') return strip(text, nullptr, false, true);
  if (sign == '+' || print) return text;
  const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
  if (line == 0 && !line_begins_) return text;
  return strip(text.substr(line), nullptr, true, false).empty() ? text.substr(0, line) : text;
}

Token Lexer::next() {
  while (waiting_.empty()) {
    if (at_ >= source_.size()) return token(TokenKind::kEnd, source_.size(), source_.size());
    Token token = state_ == State::kText ? text_token() : state_ == State::kRaw ? raw_token() : code_token();
    if (token.kind != TokenKind::kText || !token.text.empty()) waiting_.insert(waiting_.begin(), token);
  }
  const Token out = waiting_.front();
  waiting_.erase(waiting_.begin());
  return out;
}

// Text up to a tag; the tag's opening is the token after it.
Token Lexer::text_token() {
  const auto opens_tag = [&](size_t brace) {
    return brace + 1 < source_.size() &&
           std::string_view("{%#").find(source_[brace + 1]) != std::string_view::npos;
  };
  size_t tag = source_.find('{', at_);
  while (tag != std::string_view::npos && !opens_tag(tag)) tag = source_.find('{', tag + 1);
  if (tag == std::string_view::npos) {
    const Token rest = token(TokenKind::kText, at_, source_.size());
    go_on(source_.size());
    return rest;
  }
  const char opens = source_[tag + 1];
  const char sign = tag + 2 < source_.size() && is_sign(source_[tag + 2]) ? source_[tag + 2] : ' ';
  const size_t inside = tag + 2 + (sign == ' ' ? 0 : 1);
  Token text = token(TokenKind::kText, at_, tag);
  text.text = stripped(text.text, sign, opens == '{');
  if (opens == '#') {
    if (!comment(inside)) raise_at(place(tag), "Missing end of comment tag");
    return text;
  }
  if (opens == '%') {
    size_t raw = skip_space(inside);
    if (source_.substr(raw).starts_with("raw")) {
      raw = skip_space(raw + 3);
      if (const size_t end = tag_end(raw, "%}", false); end != std::string_view::npos) {
        place(tag);
        go_on(end);
        state_ = State::kRaw;
        return text;
      }
    }
  }
  state_ = opens == '{' ? State::kPrint : State::kBlock;
  waiting_.push_back(token(opens == '{' ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, tag, inside));
  go_on(inside);
  return text;
}

bool Lexer::comment(size_t from) {
  size_t end = source_.find("#}", from);
  if (end == std::string_view::npos) return false;
  if (end > from && is_sign(source_[end - 1])) --end;
  go_on(tag_end(end, "#}", true));
  return true;
}

Token Lexer::raw_token() {
  for (size_t tag = source_.find("{%", at_); tag != std::string_view::npos;
       tag = source_.find("{%", tag + 1)) {
    const char sign = tag + 2 < source_.size() && is_sign(source_[tag + 2]) ? source_[tag + 2] : ' ';
    size_t end = skip_space(tag + 2 + (sign == ' ' ? 0 : 1));
    if (!source_.substr(end).starts_with("endraw")) continue;
    end = tag_end(skip_space(end + 6), "%}", true);
    if (end == std::string_view::npos) continue;
    Token text = token(TokenKind::kText, at_, tag);
    text.text = stripped(text.text, sign, false);
    go_on(end);
    state_ = State::kText;
    return text;
  }
  raise_at(place(at_), "Missing end of raw directive");
}

bool Lexer::code_end(Token& out) {
  const bool print = state_ == State::kPrint;
  const size_t end = tag_end(at_, print ? "}}" : "%}", !print);
  if (end == std::string_view::npos) return false;
  out = token(print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, at_, end);
  go_on(end);
  state_ = State::kText;
  return true;
}

Token Lexer::code_token() {
  Token out;
  if (brackets_.empty() && code_end(out)) return out;
  if (const size_t after = skip_space(at_); after > at_) {
    go_on(after);
    return {TokenKind::kText, {}, {}};  // nothing
  }
  const auto take = [&](TokenKind kind, size_t end) {
    out = token(kind, at_, end);
    go_on(end);
    return out;
  };
  const char c = source_[at_];
  if (is_digit(c)) {
    bool real = false;
    const size_t end = number_end(real);
    return take(real ? TokenKind::kFloat : TokenKind::kInteger, end);
  }
  size_t end = at_, size = 0;
  while (end < source_.size() && is_word(first_of(source_.substr(end), size))) end += size;
  if (end > at_) {
    const char32_t first = first_of(source_.substr(at_), size);
    if (first != '_' && character_classes()[first] != CharacterClass::kLetter)
      raise_at(place(at_), "Invalid character in identifier");
    return take(TokenKind::kName, end);
  }
  if (c == '\'' || c == '"')
    if (const size_t close = string_end(); close != std::string_view::npos)
      return take(TokenKind::kString, close);
  return operator_token();
}

size_t Lexer::number_end(bool& real) const {
  const auto at = [&](size_t i) { return i < source_.size() ? source_[i] : ' '; };
  const auto lower = [](char c) { return static_cast<char>(c | 0x20); };
  size_t end = digits_end(source_, at_, is_digit);
  const bool follows_dot = at_ > 0 && source_[at_ - 1] == '.';
  if (!follows_dot) {
    if (at(end) == '.' && is_digit(at(end + 1))) {
      end = digits_end(source_, end + 1, is_digit);
      real = true;
    }
    const size_t power = end + 1 + (is_sign(at(end + 1)) ? 1 : 0);
    if (lower(at(end)) == 'e' && is_digit(at(power))) {
      real = true;
      return digits_end(source_, power, is_digit);
    }
    if (real) return end;
  }
  if (at(at_) != '0') return end;
  bool (*accepts)(char) = nullptr;
  if (lower(at(at_ + 1)) == 'b') accepts = [](char c) { return c == '0' || c == '1'; };
  if (lower(at(at_ + 1)) == 'o') accepts = [](char c) { return c >= '0' && c <= '7'; };
  if (lower(at(at_ + 1)) == 'x')
    accepts = [](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); };
  if (accepts != nullptr) {
    const size_t begin = at_ + 2 + (at(at_ + 2) == '_' ? 1 : 0);
    if (const size_t stop = digits_end(source_, begin, accepts); stop > begin) return stop;
  }
  return digits_end(source_, at_, [](char c) { return c == '0'; });
}

size_t Lexer::string_end() const {
  for (size_t i = at_ + 1; i < source_.size(); ++i) {
    if (source_[i] == '\\')
      ++i;
    else if (source_[i] == source_[at_])
      return i + 1;
  }
  return std::string_view::npos;
}

Token Lexer::operator_token() {
  static constexpr std::array<std::string_view, 26> kOperators = {
      "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
  const std::string_view rest = source_.substr(at_);
  for (const std::string_view text : kOperators) {
    if (!rest.starts_with(text)) continue;
    const char c = text[0];
    if (c == '(' || c == '[' || c == '{') brackets_.push_back(closing(c));
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty()) raise_at(place(at_), "unexpected '{}'", c);
      const char expected = brackets_.back();
      if (expected != c) raise_at(place(at_), "unexpected '{}', expected '{}'", c, expected);
      brackets_.pop_back();
    }
    const Token out = token(TokenKind::kOperator, at_, at_ + text.size());
    go_on(at_ + text.size());
    return out;
  }
  size_t size = 0;
  first_of(rest, size);
  raise_at(place(at_), "unexpected char {} at {}", in_quotes(rest.substr(0, size)),
           characters(source_.substr(0, at_), false));
}

}  // namespace retort::data::jinja
