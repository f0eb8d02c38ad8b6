// The part of ExpressionParser that reads operands: names, literals, tuples and targets, and what follows an operand
// (attributes, elements, calls, filters, tests).
#include <algorithm>

#include "data/templates/expression_parser.h"
#include "data/templates/number.h"
#include "data/templates/text.h"
#include "data/tokenizers/unicode.h"

namespace retort::data::jinja {
namespace {

using Node = Expression::Kind;

// One escape of a string, as Python's unicode-escape reads it; `i` is after the backslash.
void unescape(std::string& out, std::string_view text, size_t& i, Place place) {
  const char c = text[i++];
  const auto code = [&](size_t digits) {
    const std::string_view hex = text.substr(i, digits);
    if (hex.size() < digits || hex.find_first_not_of("0123456789abcdefABCDEF") != hex.npos)
      raise_at(place, "truncated \\{}{} escape", c, std::string(digits, 'X'));
    i += digits;
    const auto value = static_cast<char32_t>(std::stoul(std::string(hex), nullptr, 16));
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
      raise_at(place, "\\{}{} is no character", c, hex);
    append_utf8(out, value);
  };
  static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
  if (const size_t found = kFrom.find(c); found != kFrom.npos) {
    out += kTo[found];
  } else if (c == 'x' || c == 'u' || c == 'U') {
    code(c == 'x' ? 2 : c == 'u' ? 4 : 8);
  } else if (c >= '0' && c <= '7') {
    char32_t value = static_cast<char32_t>(c - '0');
    for (int more = 0; more < 2 && i < text.size() && text[i] >= '0' && text[i] <= '7'; ++more)
      value = value * 8 + static_cast<char32_t>(text[i++] - '0');
    append_utf8(out, value);
  } else if (c == 'N') {
    raise_at(place, "\\N{{...}} escapes are not supported");
  } else if (static_cast<unsigned char>(c) >= 0x80) {  // jinja2 escapes the character itself, and stops there
    size_t size = 0;
    const auto value = static_cast<uint32_t>(first_of(text.substr(i - 1), size));
    out += value < 0x100     ? fmt::format("\\x{:02x}", value)
           : value < 0x10000 ? fmt::format("\\u{:04x}", value)
                             : fmt::format("\\U{:08x}", value);
    i += size - 1;
  } else if (c != '\n') {
    (out += '\\') += c;
  }
}

}  // namespace

Expression* ExpressionParser::primary(bool namespaces) {
  switch (current_.kind) {
    case TokenKind::kName:
      return name(advance(), namespaces);
    case TokenKind::kString:
      return string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return number();
    default:
      break;
  }
  if (skip_operator("(")) {
    Expression* out = tuple(true, "", true);
    expect_operator(")");
    return out;
  }
  if (current_.is_operator("[")) return list();
  if (current_.is_operator("{")) return dict();
  raise_at(current_.place, "unexpected {}", in_quotes(described(current_)));
}

Expression* ExpressionParser::name(const Token& token, bool namespaces) {
  const std::string_view text = token.text;
  if (text == "true" || text == "True") return constant(token.place, Value::boolean(true));
  if (text == "false" || text == "False") return constant(token.place, Value::boolean(false));
  if (text == "none" || text == "None") return constant(token.place, Value::none());
  static constexpr std::string_view kNames[kSpecials] = {"loop", "caller", "varargs", "kwargs"};
  for (size_t i = 0; i < kSpecials; ++i)
    if (text == kNames[i]) ++reads_[i];
  const bool attribute = namespaces && skip_operator(".");
  Expression* out = make(attribute ? Node::kAttributeOf : Node::kName, token.place, {});
  out->name = text;
  if (attribute) out->constant = Value::text(expect(TokenKind::kName).text);
  return out;
}

std::string_view ExpressionParser::unescaped(const Token& token) {
  const std::string_view text = token.text.substr(1, token.text.size() - 2);
  if (text.find('\\') == text.npos) return text;
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '\\')
      out += text[i++];
    else
      unescape(out, text, ++i, token.place);
  }
  return syntax_.texts.emplace_back(std::move(out));
}

Expression* ExpressionParser::string() {
  const Place place = current_.place;
  std::string_view text = unescaped(advance());
  if (current_.kind == TokenKind::kString) {
    std::string joined(text);
    while (current_.kind == TokenKind::kString) joined += unescaped(advance());
    text = syntax_.texts.emplace_back(std::move(joined));
  }
  return constant(place, Value::text(text));
}

Expression* ExpressionParser::number() {
  const Token token = advance();
  if (token.kind == TokenKind::kFloat) return constant(token.place, Value::real(*parse_real(token.text)));
  try {
    const Integer value = parse_integer(token.text, 0).value_or(0);
    if (value <= INT64_MAX) return constant(token.place, Value::integer(static_cast<int64_t>(value)));
    return constant(token.place, Value::wide(syntax_.integers.emplace_back(value)));
  } catch (const Raised& raised) {
    throw Raised{raised.text, token.place};
  }
}

Expression* ExpressionParser::list() {
  const Place place = expect_operator("[").place;
  std::vector<Expression*> items;
  while (!current_.is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (current_.is_operator("]")) break;
    items.push_back(expression());
  }
  expect_operator("]");
  return make(Node::kList, place, std::move(items));
}

Expression* ExpressionParser::dict() {
  const Place place = expect_operator("{").place;
  std::vector<Expression*> items;
  while (!current_.is_operator("}")) {
    if (!items.empty()) expect_operator(",");
    if (current_.is_operator("}")) break;
    items.push_back(expression());
    expect_operator(":");
    items.push_back(expression());
  }
  expect_operator("}");
  return make(Node::kDict, place, std::move(items));
}

bool ExpressionParser::ends_tuple(std::string_view end) const {
  return current_.kind == TokenKind::kPrintEnd || current_.kind == TokenKind::kBlockEnd ||
         current_.is_operator(")") || (!end.empty() && current_.is_name(end));
}

Expression* ExpressionParser::tuple(bool conditions, std::string_view end, bool brackets) {
  Place place = current_.place;
  std::vector<Expression*> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (ends_tuple(end)) break;
    items.push_back(expression(conditions));
    if (!current_.is_operator(",")) break;
    is_tuple = true;
    place = current_.place;
  }
  if (!is_tuple && !items.empty()) return items[0];
  if (!is_tuple && !brackets)
    raise_at(current_.place, "Expected an expression, got {}", in_quotes(described(current_)));
  return make(Node::kTuple, place, std::move(items));
}

Expression* ExpressionParser::target_name() {
  const Token token = expect(TokenKind::kName);
  for (const std::string_view fixed : {"true", "false", "none", "True", "False", "None"})
    if (token.text == fixed) raise_at(token.place, "can't assign to 'name'");
  if (token.text == "loop") ++loop_stores_;
  Expression* out = make(Node::kName, token.place, {});
  out->name = token.text;
  return out;
}

Expression* ExpressionParser::target(bool namespaces, std::string_view end) {
  const Place place = current_.place;
  std::vector<Expression*> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_operator(",");
    if (ends_tuple(end)) break;
    const Counts before = reads_;
    Expression* one = primary(namespaces);
    if (one->kind == Node::kName) reads_ = before;  // it is set, not read
    if (one->kind == Node::kName && one->name == "loop") ++loop_stores_;
    const bool nested =
        one->kind == Node::kTuple && std::all_of(one->parts.begin(), one->parts.end(),
                                                 [](auto* part) { return part->kind == Node::kName; });
    if (one->kind != Node::kName && one->kind != Node::kAttributeOf && !nested)
      raise_at(one->place, "can't assign to an expression");
    items.push_back(one);
    if (!current_.is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return items[0];
  if (!is_tuple) raise_at(current_.place, "Expected an expression, got {}", in_quotes(described(current_)));
  return make(Node::kTuple, place, std::move(items));
}

// --- what follows an operand ---------------------------------------------------------------------------

Expression* ExpressionParser::postfix(Expression* node) {
  while (true) {
    if (current_.is_operator(".") || current_.is_operator("["))
      node = subscript(node);
    else if (current_.is_operator("("))
      node = call(node);
    else
      return node;
  }
}

Expression* ExpressionParser::filter_expression(Expression* node) {
  while (true) {
    if (current_.is_operator("|"))
      node = filters(node, false);
    else if (current_.is_name("is"))
      node = test(node);
    else if (current_.is_operator("("))
      node = call(node);
    else
      return node;
  }
}

Expression* ExpressionParser::subscript(Expression* node) {
  const Token sign = advance();
  if (sign.text == ".") {
    const Token member = advance();
    if (member.kind == TokenKind::kInteger) {
      const Integer index = parse_integer(member.text, 0).value_or(0);
      return make(Node::kItem, sign.place,
                  {node, constant(member.place, Value::integer(static_cast<int64_t>(index)))});
    }
    if (member.kind != TokenKind::kName) raise_at(member.place, "expected name or number");
    Expression* out = make(Node::kAttribute, sign.place, {node});
    out->name = member.text;
    return out;
  }
  std::vector<Expression*> items;
  bool slices = false;
  while (!current_.is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    items.push_back(subscribed(node, sign.place, slices));
  }
  expect_operator("]");
  if (items.size() == 1 && slices) return items[0];
  if (slices) raise_at(sign.place, "slices of more than one dimension are not supported");
  Expression* index = items.size() == 1 ? items[0] : make(Node::kTuple, sign.place, std::move(items));
  return make(Node::kItem, sign.place, {node, index});
}

// What [ ] holds: an index, or the slice of `owner`.
Expression* ExpressionParser::subscribed(Expression* owner, Place place, bool& is_slice) {
  std::vector<Expression*> parts = {owner, nullptr, nullptr, nullptr};
  const auto follows = [&] { return !current_.is_operator("]") && !current_.is_operator(","); };
  if (!current_.is_operator(":")) {
    parts[1] = expression();
    if (!current_.is_operator(":")) return parts[1];
  }
  advance();
  if (!current_.is_operator(":") && follows()) parts[2] = expression();
  if (skip_operator(":") && follows()) parts[3] = expression();
  is_slice = true;
  return make(Node::kSlice, place, std::move(parts));
}

void ExpressionParser::call_arguments(Expression& call) {
  const Place place = expect_operator("(").place;
  const auto ensure = [&](bool holds) {
    if (!holds) raise_at(place, "invalid syntax for function call expression");
  };
  for (bool first = true; !current_.is_operator(")"); first = false) {
    if (!first) {
      expect_operator(",");
      if (current_.is_operator(")")) break;
    }
    if (skip_operator("*")) {
      ensure(call.rest == nullptr && call.named_rest == nullptr);
      call.rest = expression();
    } else if (skip_operator("**")) {
      ensure(call.named_rest == nullptr);
      call.named_rest = expression();
    } else if (current_.kind == TokenKind::kName && look().is_operator("=")) {
      ensure(call.named_rest == nullptr);
      const std::string_view key = advance().text;
      advance();
      if (std::find(call.names.begin(), call.names.end(), key) != call.names.end())
        raise_at(current_.place, "keyword argument repeated: {}", key);
      call.names.push_back(key);
      call.parts.push_back(expression());
    } else {
      ensure(call.rest == nullptr && call.named_rest == nullptr && call.names.empty());
      call.parts.push_back(expression());
    }
    for (const Expression* part : {call.rest, call.named_rest, call.parts.back()})
      if (part != nullptr) call.height = std::max(call.height, part->height + 1);
  }
  expect_operator(")");
  if (call.height > limits_.height)
    raise_at(place, "has operations nested deeper than {}, the limit of a template", limits_.height);
}

Expression* ExpressionParser::call(Expression* callee) {
  Expression* out = make(Node::kCall, current_.place, {callee});
  call_arguments(*out);
  return out;
}

std::string ExpressionParser::dotted_name() {
  std::string out(expect(TokenKind::kName).text);
  while (skip_operator(".")) (out += '.') += expect(TokenKind::kName).text;
  return out;
}

Expression* ExpressionParser::filters(Expression* subject, bool first) {
  while (first || current_.is_operator("|")) {
    if (!first) advance();
    first = false;
    const Place place = current_.place;
    const std::string name = dotted_name();
    Expression* out = make(Node::kFilter, place, {subject});
    if (current_.is_operator("(")) call_arguments(*out);
    out->builtin = jinja::filters().find(name);
    if (out->builtin == nullptr) raise_at(place, "No filter named {}.", in_quotes(name));
    subject = out;
  }
  return subject;
}

Expression* ExpressionParser::test(Expression* subject) {
  const Place place = advance().place;
  const bool negated = skip_name("not");
  const std::string name = dotted_name();
  Expression* out = make(Node::kTest, place, {subject});
  const bool operand = current_.kind == TokenKind::kName || current_.kind == TokenKind::kString ||
                       current_.kind == TokenKind::kInteger || current_.kind == TokenKind::kFloat ||
                       current_.is_operator("[") || current_.is_operator("{");
  if (current_.is_operator("(")) {
    call_arguments(*out);
  } else if (operand && !current_.is_name("else") && !current_.is_name("or") && !current_.is_name("and")) {
    if (current_.is_name("is")) raise_at(current_.place, "You cannot chain multiple tests with is");
    out->parts.push_back(postfix(primary()));
    out->height = std::max(out->height, out->parts.back()->height + 1);
  }
  out->builtin = tests().find(name);
  if (out->builtin == nullptr) raise_at(place, "No test named {}.", in_quotes(name));
  return negated ? make(Node::kNot, place, {out}) : out;
}

}  // namespace retort::data::jinja
