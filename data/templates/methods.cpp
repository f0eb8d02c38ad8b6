// The methods that Python's texts, lists, tuples and dicts have.
#include <algorithm>
#include <unordered_map>

#include "data/templates/access.h"
#include "data/templates/format.h"
#include "data/templates/interpreter.h"
#include "data/templates/print.h"
#include "data/templates/text.h"
#include "data/templates/text_methods.h"

namespace retort::data::jinja {
namespace {

Value index_of(Interpreter& at, const Call& call) {
  const auto items = call.self.items();
  const auto bound = [&](size_t parameter, int64_t absent) {
    if (!call.given(parameter)) return absent;
    const int64_t value = integer_argument(call[parameter], "index");
    const auto count = static_cast<int64_t>(items.size());
    return std::clamp<int64_t>(value < 0 ? value + count : value, 0, count);
  };
  for (int64_t i = bound(1, 0); i < bound(2, static_cast<int64_t>(items.size())); ++i)
    if (equal(at.heap(), items[static_cast<size_t>(i)], call[0])) return Value::integer(i);
  raise("{} is not in {}", repr_of(at, call[0]), type_name(call.self));
}

Value count_of(Interpreter& at, const Call& call) {
  int64_t count = 0;
  for (const Value& item : call.self.items()) count += equal(at.heap(), item, call[0]) ? 1 : 0;
  return Value::integer(count);
}

Value itself(Interpreter&, const Call& call) { return call.self; }

Value get(Interpreter& at, const Call& call) {
  hash(at.heap(), call[0]);  // raises for what cannot be a key
  const Value* found = call.self.dict().find(at.heap(), call[0]);
  return found != nullptr ? *found : call.given(1) ? call[1] : Value::none();
}

template <DictView::Part part>
Value view(Interpreter& at, const Call& call) {
  return Value::object(at.heap().make<DictView>(call.self.dict(), part));
}

const std::vector<Builtin>& list_methods() {
  static const std::vector<Builtin> table = {{"index", {"value", "start", "stop"}, 1, index_of},
                                             {"count", {"value"}, 1, count_of},
                                             {"copy", {}, 0, itself}};
  return table;
}

const std::vector<Builtin>& tuple_methods() {
  static const std::vector<Builtin> table = {{"index", {"value", "start", "stop"}, 1, index_of},
                                             {"count", {"value"}, 1, count_of}};
  return table;
}

const std::vector<Builtin>& dict_methods() {
  static const std::vector<Builtin> table = {{"get", {"key", "default"}, 1, get},
                                             {"keys", {}, 0, view<DictView::Part::kKeys>},
                                             {"values", {}, 0, view<DictView::Part::kValues>},
                                             {"items", {}, 0, view<DictView::Part::kItems>},
                                             {"copy", {}, 0, itself}};
  return table;
}

using Index = std::unordered_map<std::string_view, const Builtin*>;

Index indexed(const std::vector<Builtin>& table) {
  Index out;
  for (const Builtin& row : table) out.emplace(row.name, &row);
  return out;
}

const Builtin* find_in(const Index& index, std::string_view name) {
  const auto found = index.find(name);
  return found == index.end() ? nullptr : found->second;
}

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What Python has and templates do not use: refused rather than taken for undefined.
bool unsupported(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Kind::kText:
      return one_of(name, {"casefold", "expandtabs", "format_map", "isascii", "isdecimal", "isidentifier",
                           "isnumeric", "isprintable", "istitle", "maketrans", "translate"});
    case Kind::kDict:
      return name == "fromkeys";
    case Kind::kBool:
    case Kind::kInteger:
    case Kind::kFloat:
      return one_of(name, {"real", "imag", "numerator", "denominator", "bit_length", "bit_count", "conjugate",
                           "to_bytes", "from_bytes", "as_integer_ratio", "is_integer", "hex", "fromhex"});
    default:
      return false;
  }
}

}  // namespace

const Builtin* find_method(const Value& value, std::string_view name) {
  static const Index texts = indexed(text_methods()), lists = indexed(list_methods()),
                     tuples = indexed(tuple_methods()), dicts = indexed(dict_methods());
  const Builtin* found = nullptr;
  if (value.is(Kind::kText)) found = find_in(texts, name);
  if (value.is(Kind::kList)) found = find_in(lists, name);
  if (value.is(Kind::kTuple)) found = find_in(tuples, name);
  if (value.is(Kind::kDict)) found = find_in(dicts, name);
  if (found == nullptr && unsupported(value, name)) raise("{}.{} is not supported", type_name(value), name);
  return found;
}

bool changes_value(const Value& value, std::string_view name) {
  if (value.is(Kind::kList))
    return one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
  return value.is(Kind::kDict) && one_of(name, {"clear", "pop", "popitem", "setdefault", "update"});
}

}  // namespace retort::data::jinja
