// The tokens of a template and its expressions, as jinja2's parser takes them: precedence, tuples without
// brackets, filters and tests after any operand. Makes nodes in a Syntax and checks their limits; filters and
// tests are looked up here, so an unknown one is refused when the template is read. Throws Raised with places.
#pragma once

#include <array>
#include <initializer_list>
#include <string>
#include <vector>

#include "data/templates/lexer.h"
#include "data/templates/limits.h"
#include "data/templates/syntax.h"

namespace retort::data::jinja {

class ExpressionParser {
 public:
  ExpressionParser(Syntax& syntax, const TemplateLimits& limits);

 protected:
  // Counts what is within each other, while it lives.
  class Nested {
   public:
    explicit Nested(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.nesting_ > parser_.limits_.nesting) parser_.too_deep();
    }
    ~Nested() { --parser_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    ExpressionParser& parser_;
  };
  // Names with a meaning of their own, counted where they are read.
  enum Special { kLoop, kCaller, kVarargs, kKwargs, kSpecials };
  using Counts = std::array<size_t, kSpecials>;

  // --- tokens
  const Token& current() const { return current_; }
  const Token& look();
  Token advance();
  bool skip_operator(std::string_view text);
  bool skip_name(std::string_view text);
  Token expect(TokenKind kind);
  Token expect_operator(std::string_view text);
  Token expect_name(std::string_view text);
  [[noreturn]] void unexpected(std::string_view expected) const;
  static std::string described(const Token& token);

  // --- expressions
  Expression* expression(bool conditions = true);
  // Also a tuple without brackets. `end`: a name that ends it, beside what always does.
  Expression* tuple(bool conditions = true, std::string_view end = "", bool brackets = false);
  Expression* target(bool namespaces, std::string_view end = "");  // of an assignment
  Expression* target_name();
  Expression* filters(Expression* subject, bool first);
  Expression* constant(Place place, const Value& value);
  void count_node();

  Syntax& syntax_;
  const TemplateLimits& limits_;
  Counts reads_{};
  size_t loop_stores_ = 0;

 private:
  [[noreturn]] void too_deep() const;
  Expression* make(Expression::Kind kind, Place place, std::vector<Expression*> parts);
  Expression* condition();
  Expression* disjunction();
  Expression* conjunction();
  Expression* negation();
  Expression* comparison();
  Expression* sum();
  Expression* concatenation();
  Expression* product();
  Expression* power();
  Expression* unary(bool with_filters = true);
  Expression* primary(bool namespaces = false);
  Expression* name(const Token& token, bool namespaces);
  Expression* string();
  Expression* number();
  Expression* list();
  Expression* dict();
  Expression* postfix(Expression* node);
  Expression* filter_expression(Expression* node);
  Expression* subscript(Expression* node);
  Expression* subscribed(Expression* owner, Place place, bool& is_slice);
  Expression* call(Expression* callee);
  Expression* test(Expression* subject);
  void call_arguments(Expression& call);
  bool ends_tuple(std::string_view end) const;
  std::string dotted_name();
  std::string_view unescaped(const Token& token);

  Lexer lexer_;
  Token current_, next_;
  bool looked_ = false;
  size_t nesting_ = 0;
};

}  // namespace retort::data::jinja
