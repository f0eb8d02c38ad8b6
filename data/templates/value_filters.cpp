// Filters of single values: defaults, numbers, JSON.
#include <cmath>

#include "data/templates/access.h"
#include "data/templates/filters.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

Value otherwise(Interpreter&, const Call& call) {
  const bool replaces = call.self.undefined() || (call.given(1) && truth(call[1]) && !truth(call.self));
  if (!replaces) return call.self;
  return call.given(0) ? call[0] : Value::text("");
}

Value absolute(Interpreter& at, const Call& call) {
  if (call.self.undefined()) raise_undefined(call.self);
  if (!call.self.is_number()) raise("bad operand type for abs(): '{}'", type_name(call.self));
  const bool negative = call.self.is_integral() ? call.self.integer() < 0 : std::signbit(call.self.real());
  return negated(at.heap(), call.self, negative);
}

Value to_integer(Interpreter& at, const Call& call) {
  const Value absent = call.given(0) ? call[0] : Value::integer(int64_t{0});
  const Value& value = call.self;
  if (value.undefined()) raise_undefined(value);
  if (value.is_integral()) return Value::integer(at.heap(), value.integer());
  if (value.is(Kind::kFloat)) {
    if (std::isnan(value.real())) return absent;
    return Value::integer(at.heap(), truncated(value.real()));
  }
  if (!value.is(Kind::kText)) return absent;
  at.heap().read(value.bytes().size());
  const int64_t base = call.given(1) ? integer_argument(call[1], "base") : 10;
  if (base != 0 && (base < 2 || base > 36)) return absent;
  if (const auto whole = parse_integer(value.bytes(), static_cast<int>(base)))
    return Value::integer(at.heap(), *whole);
  const auto real = parse_real(value.bytes());
  return real && std::isfinite(*real) ? Value::integer(at.heap(), truncated(*real)) : absent;
}

Value to_real(Interpreter& at, const Call& call) {
  const Value absent = call.given(0) ? call[0] : Value::real(0.0);
  if (call.self.undefined()) raise_undefined(call.self);
  if (call.self.is_number()) return Value::real(call.self.real());
  if (!call.self.is(Kind::kText)) return absent;
  at.heap().read(call.self.bytes().size());
  const auto real = parse_real(call.self.bytes());
  return real ? Value::real(*real) : absent;
}

Value round(Interpreter& at, const Call& call) {
  const int64_t digits = call.given(0) ? integer_argument(call[0], "precision") : 0;
  if (call.given(1)) raise("round() with a method is not supported");
  if (digits < 0) raise("round() to less than whole numbers is not supported");
  if (call.self.undefined()) raise_undefined(call.self);
  if (!call.self.is_number()) raise("type {} doesn't define __round__ method", type_name(call.self));
  if (call.self.is_integral()) return Value::integer(at.heap(), call.self.integer());
  return Value::real(rounded(call.self.real(), digits));
}

// As transformers has it, not as jinja2.
Value to_json(Interpreter& at, const Call& call) {
  JsonForm form;
  form.ascii = call.given(0) && truth(call[0]);
  form.sorted = call.given(3) && truth(call[3]);
  form.indented = call.given(1) && !call[1].is(Kind::kNone);
  if (form.indented) form.item = ",";
  Buffer spaces(at.heap());
  if (form.indented && call[1].is(Kind::kText)) form.indent = call[1].bytes();
  if (form.indented && !call[1].is(Kind::kText)) {
    const int64_t width = integer_argument(call[1], "indent");
    if (width > 1'000'000) raise("indents by more than 1000000, the limit");
    spaces.repeat(' ', static_cast<size_t>(std::max<int64_t>(width, 0)));
    form.indent = spaces.view();
  }
  if (call.given(2) && !call[2].is(Kind::kNone)) {
    const auto pair = listed(at, call[2]);
    if (pair.size() != 2) raise("separators must be two texts, got {}", pair.size());
    form.item = text_argument(pair[0], "separator");
    form.key = text_argument(pair[1], "separator");
  }
  Buffer out(at.heap());
  print_json(at, out, call.self, form);
  return Value::text(out.take());
}

}  // namespace

const std::vector<Builtin>& value_filters() {
  static const std::vector<Builtin> table = {
      {"default", {"default_value", "boolean"}, 0, otherwise},
      {"d", {"default_value", "boolean"}, 0, otherwise},
      {"abs", {}, 0, absolute},
      {"int", {"default", "base"}, 0, to_integer},
      {"float", {"default"}, 0, to_real},
      {"round", {"precision", "method"}, 0, round},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, to_json}};
  return table;
}

}  // namespace retort::data::jinja
