// Filters of what has elements: the first, all of them, how many, cut into parts.
#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/filters.h"
#include "data/templates/interpreter.h"
#include "data/templates/number.h"
#include "data/templates/print.h"
#include "data/templates/text_methods.h"

namespace retort::data::jinja {
namespace {

Value first(Interpreter& at, const Call& call) {
  Value out;
  if (iterate(at, call.self)->next(at, out)) return out;
  return Value::undefined("No first item, sequence was empty.");
}

bool is_iterator(const Value& value) {
  return value.is(Kind::kObject) && dynamic_cast<const Iterator*>(&value.object()) != nullptr;
}

Value last(Interpreter& at, const Call& call) {
  if (is_iterator(call.self)) raise("'generator' object is not reversible");
  if (!sized(call.self)) raise("'{}' object is not reversible", type_name(call.self));
  if (length(at, call.self) == 0) return Value::undefined("No last item, sequence was empty.");
  if (call.self.is(Kind::kText)) return item(at, call.self, Value::integer(-1)).as_markup(false);
  return listed(at, call.self).back();
}

Value reverse(Interpreter& at, const Call& call) {
  if (call.self.is(Kind::kText)) return slice(at, call.self, {}, {}, Value::integer(-1));
  if (!iterable(at, call.self)) raise("argument must be iterable");
  const auto items = listed(at, call.self);
  if (!is_iterator(call.self)) return Value::object(at.heap().make<ItemIterator>(items, true));
  Value* out = at.heap().array<Value>(items.size());
  std::reverse_copy(items.begin(), items.end(), out);
  return Value::list({out, items.size()});
}

Value count(Interpreter& at, const Call& call) { return Value::integer(length(at, call.self)); }

Value list(Interpreter& at, const Call& call) { return Value::list(listed(at, call.self)); }

std::span<const Value> items(Interpreter& at, const Call& call) {
  if (call.self.undefined()) return {};
  if (!call.self.is(Kind::kDict)) raise("Can only get item pairs from a mapping.");
  DictView pairs(call.self.dict(), DictView::Part::kItems);
  return listed(at, Value::object(&pairs));
}

Value join(Interpreter& at, const Call& call) {
  const Value between = call.given(0) ? text_of(at, call[0]) : Value::text("");
  const AttributePath path(at, call[1]);
  Items texts(at.heap());
  Iterator* values = iterate(at, call.self);
  for (Value one; values->next(at, one);) texts.add(path.of(at, one));
  return joined(at, between.bytes(), texts.all());
}

Value sum(Interpreter& at, const Call& call) {
  const AttributePath path(at, call[0]);
  Value out = call.given(1) ? call[1] : Value::integer(int64_t{0});
  if (out.is(Kind::kText)) raise("sum() can't sum strings [use ''.join(seq) instead]");
  Iterator* values = iterate(at, call.self);
  for (Value one; values->next(at, one);) out = arithmetic(at, Operator::kAdd, out, path.of(at, one));
  return out;
}

std::span<const Value> batch(Interpreter& at, const Call& call) {
  const int64_t size = integer_argument(call[0], "linecount");
  const bool fills = call.given(1) && !call[1].is(Kind::kNone);
  const auto values = listed(at, call.self);
  if (size < 1) raise("batch() takes a size of at least 1, not {}", size);
  const auto step = static_cast<size_t>(size);
  Items out(at.heap());
  for (size_t i = 0; i < values.size(); i += step) {
    const auto part = values.subspan(i, std::min(step, values.size() - i));
    if (part.size() == step || !fills) {
      out.add(Value::list(part));
      continue;
    }
    Value* filled = at.heap().array<Value>(step);
    at.heap().step(step);
    std::fill(std::copy(part.begin(), part.end(), filled), filled + step, call[1]);
    out.add(Value::list({filled, step}));
  }
  return std::as_const(out).all();
}

std::span<const Value> slices(Interpreter& at, const Call& call) {
  const int64_t count = integer_argument(call[0], "slices");
  const bool fills = call.given(1) && !call[1].is(Kind::kNone);
  const auto values = listed(at, call.self);
  if (count == 0) raise("integer division or modulo by zero");
  Items out(at.heap());
  const auto parts = static_cast<size_t>(std::max<int64_t>(count, 0));
  for (size_t i = 0, begin = 0; i < parts; ++i) {
    const bool longer = i < values.size() % parts;
    const size_t size = values.size() / parts + (longer ? 1 : 0);
    const auto part = values.subspan(begin, size);
    begin += size;
    if (!fills || longer) {
      out.add(Value::list(part));
      continue;
    }
    Value* filled = at.heap().array<Value>(size + 1);
    *std::copy(part.begin(), part.end(), filled) = call[1];
    out.add(Value::list({filled, size + 1}));
  }
  return std::as_const(out).all();
}

}  // namespace

const std::vector<Builtin>& sequence_filters() {
  static const std::vector<Builtin> table = {{"first", {}, 0, first},
                                             {"last", {}, 0, last},
                                             {"reverse", {}, 0, reverse},
                                             {"length", {}, 0, count},
                                             {"count", {}, 0, count},
                                             {"list", {}, 0, list},
                                             {"items", {}, 0, later<items>},
                                             {"join", {"d", "attribute"}, 0, join},
                                             {"sum", {"attribute", "start"}, 0, sum},
                                             {"batch", {"linecount", "fill_with"}, 1, later<batch>},
                                             {"slice", {"slices", "fill_with"}, 1, later<slices>}};
  return table;
}

}  // namespace retort::data::jinja
