// Cuts a template into tokens, as jinja2's lexer with trim_blocks and lstrip_blocks: all white space control is
// done here. Tokens come one at a time, so that an error is raised where the parser gets to it.
// Raises for what is no token. Time in proportion to the source.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/templates/raised.h"

namespace retort::data::jinja {

enum class TokenKind {
  kText,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text;  // of the source; of a string with its quotes
  Place place;

  bool is(TokenKind wanted, std::string_view value) const { return kind == wanted && text == value; }
  bool is_name(std::string_view value) const { return is(TokenKind::kName, value); }
  bool is_operator(std::string_view value) const { return is(TokenKind::kOperator, value); }
};

class Lexer {
 public:
  // The source has \n for every end of a line, and the last one dropped (prepared()).
  explicit Lexer(std::string_view source) : source_(source) {}
  static std::string prepared(std::string_view source);
  Token next();

 private:
  enum class State { kText, kPrint, kBlock, kRaw };
  Token text_token();
  Token raw_token();
  Token code_token();
  bool comment(size_t from);
  Token operator_token();
  size_t number_end(bool& real) const;
  size_t string_end() const;
  bool code_end(Token& token);
  // The end of a tag's end, with the white space that it takes, if one begins there.
  size_t tag_end(size_t at, std::string_view mark, bool trims) const;
  size_t skip_space(size_t at) const;
  Token token(TokenKind kind, size_t begin, size_t end);
  std::string_view stripped(std::string_view text, char sign, bool print) const;
  Place place(size_t at);
  void go_on(size_t at);  // past what was read

  std::string_view source_;
  size_t at_ = 0;
  State state_ = State::kText;
  bool line_begins_ = true;
  std::vector<char> brackets_;  // that are open, by what closes them
  std::vector<Token> waiting_;
  size_t place_at_ = 0;
  Place place_;
};

}  // namespace retort::data::jinja
