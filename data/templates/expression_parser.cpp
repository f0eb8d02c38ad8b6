#include "data/templates/expression_parser.h"

#include <algorithm>

#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

using Node = Expression::Kind;

struct ComparisonSign {
  std::string_view text;
  Comparison sign;
};
constexpr ComparisonSign kComparisons[] = {{"==", Comparison::kEqual},     {"!=", Comparison::kUnequal},
                                           {"<", Comparison::kLess},       {">", Comparison::kGreater},
                                           {"<=", Comparison::kLessEqual}, {">=", Comparison::kGreaterEqual}};

const ComparisonSign* comparison_sign(const Token& token) {
  for (const ComparisonSign& row : kComparisons)
    if (token.is_operator(row.text)) return &row;
  return nullptr;
}

}  // namespace

ExpressionParser::ExpressionParser(Syntax& syntax, const TemplateLimits& limits)
    : syntax_(syntax), limits_(limits), lexer_(syntax.source) {
  current_ = lexer_.next();
}

// --- tokens --------------------------------------------------------------------------------------------

const Token& ExpressionParser::look() {
  if (!looked_) next_ = lexer_.next();
  looked_ = true;
  return next_;
}

Token ExpressionParser::advance() {
  const Token out = current_;
  current_ = look();
  looked_ = false;
  return out;
}

bool ExpressionParser::skip_operator(std::string_view text) {
  const bool found = current_.is_operator(text);
  if (found) advance();
  return found;
}

bool ExpressionParser::skip_name(std::string_view text) {
  const bool found = current_.is_name(text);
  if (found) advance();
  return found;
}

Token ExpressionParser::expect(TokenKind kind) {
  if (current_.kind != kind) unexpected(described({kind, kind == TokenKind::kName ? "name" : "", {}}));
  return advance();
}

Token ExpressionParser::expect_operator(std::string_view text) {
  if (!current_.is_operator(text)) unexpected(text);
  return advance();
}

Token ExpressionParser::expect_name(std::string_view text) {
  if (!current_.is_name(text)) unexpected(text);
  return advance();
}

void ExpressionParser::unexpected(std::string_view expected) const {
  if (current_.kind == TokenKind::kEnd)
    raise_at(current_.place, "unexpected end of template, expected {}.", in_quotes(expected));
  raise_at(current_.place, "expected token {}, got {}", in_quotes(expected), in_quotes(described(current_)));
}

std::string ExpressionParser::described(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "template data / text";
    case TokenKind::kPrintBegin:
      return "begin of print statement";
    case TokenKind::kPrintEnd:
      return "end of print statement";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kString:
      return "string";
    case TokenKind::kInteger:
      return "integer";
    case TokenKind::kFloat:
      return "float";
    case TokenKind::kEnd:
      return "end of template";
    default:
      return std::string(token.text);
  }
}

// --- nodes ---------------------------------------------------------------------------------------------

void ExpressionParser::too_deep() const {
  raise_at(current_.place, "nests brackets or blocks deeper than {}, the limit of a template",
           limits_.nesting);
}

void ExpressionParser::count_node() {
  if (syntax_.expressions.size() + syntax_.statements.size() >= limits_.nodes)
    raise_at(current_.place, "has more than {} expressions and statements, the limit of a template",
             limits_.nodes);
}

Expression* ExpressionParser::make(Node kind, Place place, std::vector<Expression*> parts) {
  count_node();
  Expression& out = syntax_.expressions.emplace_back();
  out.kind = kind;
  out.place = place;
  for (const Expression* part : parts)
    if (part != nullptr) out.height = std::max(out.height, part->height + 1);
  if (out.height > limits_.height)
    raise_at(place, "has operations nested deeper than {}, the limit of a template", limits_.height);
  out.parts = std::move(parts);
  return &out;
}

Expression* ExpressionParser::constant(Place place, const Value& value) {
  Expression* out = make(Node::kConstant, place, {});
  out->constant = value;
  return out;
}

// --- operators, by precedence --------------------------------------------------------------------------

Expression* ExpressionParser::expression(bool conditions) {
  const Nested nested(*this);
  return conditions ? condition() : disjunction();
}

Expression* ExpressionParser::condition() {
  Place place = current_.place;
  Expression* value = disjunction();
  while (skip_name("if")) {
    Expression* const test = disjunction();
    Expression* const other = skip_name("else") ? expression() : nullptr;
    value = make(Node::kCondition, place, {value, test, other});
    if (other == nullptr)
      value->constant = Value::undefined(syntax_.texts.emplace_back(fmt::format(
          "the inline if-expression on line {} evaluated to false and no else section was defined.",
          place.line)));
    place = current_.place;
  }
  return value;
}

Expression* ExpressionParser::disjunction() {
  Expression* left = conjunction();
  for (Place place = current_.place; skip_name("or"); place = current_.place)
    left = make(Node::kOr, place, {left, conjunction()});
  return left;
}

Expression* ExpressionParser::conjunction() {
  Expression* left = negation();
  for (Place place = current_.place; skip_name("and"); place = current_.place)
    left = make(Node::kAnd, place, {left, negation()});
  return left;
}

Expression* ExpressionParser::negation() {
  const Place place = current_.place;
  if (!skip_name("not")) return comparison();
  const Nested nested(*this);
  return make(Node::kNot, place, {negation()});
}

Expression* ExpressionParser::comparison() {
  std::vector<Expression*> parts = {sum()};
  std::vector<Comparison> signs;
  const Place place = current_.place;
  while (true) {
    if (const ComparisonSign* row = comparison_sign(current_)) {
      advance();
      signs.push_back(row->sign);
    } else if (skip_name("in")) {
      signs.push_back(Comparison::kIn);
    } else if (current_.is_name("not") && look().is_name("in")) {
      advance();
      advance();
      signs.push_back(Comparison::kNotIn);
    } else {
      break;
    }
    parts.push_back(sum());
  }
  if (signs.empty()) return parts[0];
  Expression* out = make(Node::kComparison, place, std::move(parts));
  out->comparisons = std::move(signs);
  return out;
}

Expression* ExpressionParser::sum() {
  Expression* left = concatenation();
  while (current_.is_operator("+") || current_.is_operator("-")) {
    const Token sign = advance();
    left = make(Node::kBinary, sign.place, {left, concatenation()});
    left->operation = sign.text == "+" ? Operator::kAdd : Operator::kSubtract;
  }
  return left;
}

Expression* ExpressionParser::concatenation() {
  const Place place = current_.place;
  std::vector<Expression*> parts = {product()};
  while (skip_operator("~")) parts.push_back(product());
  return parts.size() == 1 ? parts[0] : make(Node::kConcat, place, std::move(parts));
}

Expression* ExpressionParser::product() {
  Expression* left = power();
  while (true) {
    const auto is = [&](std::string_view text) { return current_.is_operator(text); };
    if (!is("*") && !is("/") && !is("//") && !is("%")) return left;
    const Token sign = advance();
    left = make(Node::kBinary, sign.place, {left, power()});
    left->operation = sign.text == "*"    ? Operator::kMultiply
                      : sign.text == "/"  ? Operator::kDivide
                      : sign.text == "//" ? Operator::kFloorDivide
                                          : Operator::kModulo;
  }
}

Expression* ExpressionParser::power() {
  Expression* left = unary();
  for (Place place = current_.place; skip_operator("**"); place = current_.place) {
    left = make(Node::kBinary, place, {left, unary()});
    left->operation = Operator::kPower;
  }
  return left;
}

Expression* ExpressionParser::unary(bool with_filters) {
  const Place place = current_.place;
  Expression* node = nullptr;
  if (current_.is_operator("-") || current_.is_operator("+")) {
    const Nested nested(*this);
    const Node kind = advance().text == "-" ? Node::kNegative : Node::kPositive;
    node = make(kind, place, {unary(false)});
  } else {
    node = primary();
  }
  node = postfix(node);
  return with_filters ? filter_expression(node) : node;
}

}  // namespace retort::data::jinja
