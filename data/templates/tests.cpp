// The tests that follow `is`: a function and a row each. Those of two values are comparisons.
#include "data/templates/access.h"
#include "data/templates/builtin.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text_methods.h"

namespace retort::data::jinja {
namespace {

template <Kind... kinds>
Value is_kind(Interpreter&, const Call& call) {
  return Value::boolean((call.self.is(kinds) || ...));
}

Value is_defined(Interpreter&, const Call& call) { return Value::boolean(!call.self.undefined()); }

template <bool wanted>
Value is_truth(Interpreter&, const Call& call) {
  return Value::boolean(call.self.is(Kind::kBool) && call.self.boolean() == wanted);
}

Value is_sequence(Interpreter&, const Call& call) {
  const Value& value = call.self;
  const bool object = value.is(Kind::kObject) && value.object().sized() && value.object().indexable();
  return Value::boolean(object || (!value.is(Kind::kObject) && sized(value)));
}

Value is_iterable(Interpreter& at, const Call& call) { return Value::boolean(iterable(at, call.self)); }

Value is_callable(Interpreter&, const Call& call) {
  return Value::boolean(call.self.undefined() ||
                        (call.self.is(Kind::kObject) && call.self.object().callable()));
}

Value is_same(Interpreter&, const Call& call) { return Value::boolean(call.self.same(call[0])); }

template <Comparison sign>
Value compare(Interpreter& at, const Call& call) {
  return Value::boolean(compared(at, sign, call.self, call[0]));
}

Value divides(Interpreter& at, const Value& value, const Value& by) {
  const Value rest = arithmetic(at, Operator::kModulo, value, by);
  return Value::boolean(equal(at.heap(), rest, Value::integer(int64_t{0})));
}

Value is_divisible(Interpreter& at, const Call& call) { return divides(at, call.self, call[0]); }
Value is_even(Interpreter& at, const Call& call) {
  return divides(at, call.self, Value::integer(int64_t{2}));
}
Value is_odd(Interpreter& at, const Call& call) {
  const Value rest = arithmetic(at, Operator::kModulo, call.self, Value::integer(int64_t{2}));
  return Value::boolean(equal(at.heap(), rest, Value::integer(int64_t{1})));
}

Value is_lower(Interpreter& at, const Call& call) {
  return run(at, *find_method(Value::text(""), "islower"), text_of(at, call.self), {});
}
Value is_upper(Interpreter& at, const Call& call) {
  return run(at, *find_method(Value::text(""), "isupper"), text_of(at, call.self), {});
}

}  // namespace

const Registry<Builtin>& tests() {
  static const Registry<Builtin> table("test",
                                       {{"defined", {}, 0, is_defined},
                                        {"undefined", {}, 0, is_kind<Kind::kUndefined>},
                                        {"none", {}, 0, is_kind<Kind::kNone>},
                                        {"boolean", {}, 0, is_kind<Kind::kBool>},
                                        {"true", {}, 0, is_truth<true>},
                                        {"false", {}, 0, is_truth<false>},
                                        {"integer", {}, 0, is_kind<Kind::kInteger>},
                                        {"float", {}, 0, is_kind<Kind::kFloat>},
                                        {"number", {}, 0, is_kind<Kind::kBool, Kind::kInteger, Kind::kFloat>},
                                        {"string", {}, 0, is_kind<Kind::kText>},
                                        {"mapping", {}, 0, is_kind<Kind::kDict>},
                                        {"sequence", {}, 0, is_sequence},
                                        {"iterable", {}, 0, is_iterable},
                                        {"callable", {}, 0, is_callable},
                                        {"sameas", {"other"}, 1, is_same},
                                        {"in", {"seq"}, 1, compare<Comparison::kIn>},
                                        {"==", {"b"}, 1, compare<Comparison::kEqual>},
                                        {"eq", {"b"}, 1, compare<Comparison::kEqual>},
                                        {"equalto", {"b"}, 1, compare<Comparison::kEqual>},
                                        {"!=", {"b"}, 1, compare<Comparison::kUnequal>},
                                        {"ne", {"b"}, 1, compare<Comparison::kUnequal>},
                                        {"<", {"b"}, 1, compare<Comparison::kLess>},
                                        {"lt", {"b"}, 1, compare<Comparison::kLess>},
                                        {"<=", {"b"}, 1, compare<Comparison::kLessEqual>},
                                        {"le", {"b"}, 1, compare<Comparison::kLessEqual>},
                                        {">", {"b"}, 1, compare<Comparison::kGreater>},
                                        {"gt", {"b"}, 1, compare<Comparison::kGreater>},
                                        {">=", {"b"}, 1, compare<Comparison::kGreaterEqual>},
                                        {"ge", {"b"}, 1, compare<Comparison::kGreaterEqual>},
                                        {"divisibleby", {"num"}, 1, is_divisible},
                                        {"even", {}, 0, is_even},
                                        {"odd", {}, 0, is_odd},
                                        {"lower", {}, 0, is_lower},
                                        {"upper", {}, 0, is_upper}});
  return table;
}

}  // namespace retort::data::jinja
