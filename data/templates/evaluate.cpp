#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"

namespace retort::data::jinja {

Value Interpreter::evaluate(const Expression& expression, Frame* frame) {
  const Deeper deeper(*this);
  heap_.step();
  place_ = expression.place;
  const auto part = [&](size_t i) { return evaluate(*expression.parts[i], frame); };
  const auto back_here = [&](Value value) { return place_ = expression.place, value; };
  switch (expression.kind) {
    case Expression::Kind::kConstant:
      return expression.constant;
    case Expression::Kind::kName:
    case Expression::Kind::kAttributeOf:
      return evaluate_name(expression, frame);
    case Expression::Kind::kList:
    case Expression::Kind::kTuple:
      return evaluate_items(expression, frame);
    case Expression::Kind::kDict:
      return evaluate_dict(expression, frame);
    case Expression::Kind::kAttribute:
      return attribute(*this, back_here(part(0)), expression.name);
    case Expression::Kind::kItem: {
      const Value owner = part(0), index = part(1);
      place_ = expression.place;
      return item(*this, owner, index);
    }
    case Expression::Kind::kSlice:
      return evaluate_slice(expression, frame);
    case Expression::Kind::kCall:
      return evaluate_call(expression, frame, nullptr);
    case Expression::Kind::kFilter:
    case Expression::Kind::kTest:
      return evaluate_filter(expression, frame);
    case Expression::Kind::kNot:
      return Value::boolean(!truth(part(0)));
    case Expression::Kind::kNegative:
    case Expression::Kind::kPositive:
      return negated(heap_, part(0), expression.kind == Expression::Kind::kNegative);
    case Expression::Kind::kAnd:
    case Expression::Kind::kOr: {
      const Value left = part(0);
      return truth(left) == (expression.kind == Expression::Kind::kAnd) ? part(1) : left;
    }
    case Expression::Kind::kCondition:
      if (truth(part(1))) return part(0);
      return expression.parts[2] == nullptr ? expression.constant : part(2);
    case Expression::Kind::kComparison:
      return evaluate_comparison(expression, frame);
    case Expression::Kind::kConcat:
      return evaluate_concat(expression, frame);
    case Expression::Kind::kBinary: {
      const Value left = part(0), right = part(1);
      place_ = expression.place;
      return arithmetic(*this, expression.operation, left, right);
    }
  }
  return {};
}

Value Interpreter::evaluate_name(const Expression& name, Frame* frame) {
  for (uint32_t up = name.slot.up; up > 0; --up) frame = frame->outer;
  const Value& variable = frame->variables[name.slot.index];
  return variable.missing() ? Value::undefined_name(name.name) : variable;
}

Value Interpreter::evaluate_items(const Expression& expression, Frame* frame) {
  Value* items = heap_.array<Value>(expression.parts.size());
  for (size_t i = 0; i < expression.parts.size(); ++i) items[i] = evaluate(*expression.parts[i], frame);
  const std::span<const Value> all(items, expression.parts.size());
  return expression.kind == Expression::Kind::kList ? Value::list(all) : Value::tuple(all);
}

Value Interpreter::evaluate_dict(const Expression& expression, Frame* frame) {
  Dict* dict = heap_.make<Dict>(heap_, expression.parts.size() / 2);
  for (size_t i = 0; i + 1 < expression.parts.size(); i += 2) {
    const Value key = evaluate(*expression.parts[i], frame);
    const Value value = evaluate(*expression.parts[i + 1], frame);
    hash(heap_, key);  // raises for what cannot be a key
    dict->set(heap_, key, value);
  }
  return Value::dict(dict);
}

Value Interpreter::evaluate_slice(const Expression& expression, Frame* frame) {
  Value parts[4];
  for (size_t i = 0; i < 4; ++i)
    if (expression.parts[i] != nullptr) parts[i] = evaluate(*expression.parts[i], frame);
  place_ = expression.place;
  return slice(*this, parts[0], parts[1], parts[2], parts[3]);
}

// Arguments by place come first, then those by name, in the order of the source.
Arguments Interpreter::arguments(const Expression& call, Frame* frame, const Value* caller) {
  const size_t written = call.parts.size() - 1, by_name = call.names.size(), by_place = written - by_name;
  std::span<const Value> rest;
  Value* placed = heap_.array<Value>(by_place);
  for (size_t i = 0; i < by_place; ++i) placed[i] = evaluate(*call.parts[1 + i], frame);
  Named* named = heap_.array<Named>(by_name + (caller != nullptr ? 1 : 0));
  size_t count = 0;
  for (size_t i = 0; i < by_name; ++i)
    named[count++] = {call.names[i], evaluate(*call.parts[1 + by_place + i], frame)};
  if (caller != nullptr) named[count++] = {"caller", *caller};
  Arguments out{{placed, by_place}, {named, count}};
  if (call.rest != nullptr) {
    rest = listed(*this, evaluate(*call.rest, frame));
    Value* all = heap_.array<Value>(by_place + rest.size());
    std::copy(rest.begin(), rest.end(), std::copy(placed, placed + by_place, all));
    out.positional = {all, by_place + rest.size()};
  }
  if (call.named_rest != nullptr) {
    const Value more = evaluate(*call.named_rest, frame);
    if (!more.is(Kind::kDict)) raise("argument after ** must be a mapping, not {}", type_name(more));
    Named* all = heap_.array<Named>(count + more.dict().size());
    std::copy(named, named + count, all);
    for (const Dict::Entry& entry : more.dict().entries()) {
      if (!entry.key.is(Kind::kText)) raise("keywords must be strings");
      all[count++] = {entry.key.bytes(), entry.value};
    }
    out.named = {all, count};
  }
  return out;
}

Value Interpreter::evaluate_call(const Expression& call, Frame* frame, const Value* caller) {
  const Expression& callee = *call.parts[0];
  if (callee.kind != Expression::Kind::kAttribute) {
    const Value function = evaluate(callee, frame);
    const Arguments given = arguments(call, frame, caller);
    place_ = call.place;
    return this->call(function, given);
  }
  const Value owner = evaluate(*callee.parts[0], frame);
  place_ = callee.place;
  const Builtin* method = owner.is(Kind::kObject) ? nullptr : find_method(owner, callee.name);
  if (method != nullptr) {
    const Arguments given = arguments(call, frame, caller);
    place_ = call.place;
    return jinja::run(*this, *method, owner, given);
  }
  const Value function = attribute(*this, owner, callee.name);
  const Arguments given = arguments(call, frame, caller);
  place_ = call.place;
  return this->call(function, given);
}

Value Interpreter::call(const Value& callee, const Arguments& given) {
  if (callee.undefined()) raise_undefined(callee);
  if (!callee.is(Kind::kObject)) raise("'{}' object is not callable", type_name(callee));
  return callee.object().call(*this, given);
}

Value Interpreter::evaluate_filter(const Expression& filter, Frame* frame) {
  const Value subject = filter.parts[0] == nullptr ? block_text_ : evaluate(*filter.parts[0], frame);
  const Arguments given = arguments(filter, frame, nullptr);
  place_ = filter.place;
  return jinja::run(*this, *filter.builtin, subject, given);
}

Value Interpreter::evaluate_comparison(const Expression& expression, Frame* frame) {
  Value left = evaluate(*expression.parts[0], frame);
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    const Value right = evaluate(*expression.parts[i + 1], frame);
    place_ = expression.place;
    if (!compared(*this, expression.comparisons[i], left, right)) return Value::boolean(false);
    left = right;
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_concat(const Expression& expression, Frame* frame) {
  Value* items = heap_.array<Value>(expression.parts.size());
  for (size_t i = 0; i < expression.parts.size(); ++i) items[i] = evaluate(*expression.parts[i], frame);
  Buffer out(heap_);
  for (size_t i = 0; i < expression.parts.size(); ++i) print(*this, out, items[i]);
  return Value::text(out.take());
}

}  // namespace retort::data::jinja
