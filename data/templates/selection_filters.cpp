// Filters that look at each element: map, select and reject, which go no further than they are asked; and
// those that put elements in order.
#include <algorithm>

#include "data/templates/access.h"
#include "data/templates/filters.h"
#include "data/templates/interpreter.h"
#include "data/templates/text.h"
#include "data/templates/text_methods.h"

namespace retort::data::jinja {
namespace {

bool flag(const Call& call, size_t parameter) { return call.given(parameter) && truth(call[parameter]); }

// --- one after another ---------------------------------------------------------------------------------

// Begins at the first element that is asked for, as Python's generators do.
struct Lazy : Iterator {
  Lazy(const Value& source, const Arguments& given) : source(source), given(given) {}
  bool advance(Interpreter& at, Value& value) {
    const Interpreter::Deeper deeper(at);  // such iterators may walk through each other
    if (values == nullptr) {
      if (!jinja::truth(source)) return false;
      prepare(at);
      values = jinja::iterate(at, source);
    }
    at.heap().step();
    return values->next(at, value);
  }
  virtual void prepare(Interpreter& at) = 0;

  Value source;
  Arguments given;
  Iterator* values = nullptr;

 protected:
  ~Lazy() = default;
};

struct Mapped final : Lazy {
  using Lazy::Lazy;
  void prepare(Interpreter& at) override {
    Value attribute, otherwise;
    for (const Named& one : given.named) (one.name == "attribute" ? attribute : otherwise) = one.value;
    if (given.positional.empty() && !attribute.missing()) {
      for (const Named& one : given.named)
        if (one.name != "attribute" && one.name != "default")
          raise("Unexpected keyword argument {}", in_quotes(one.name));
      path = at.heap().make<AttributePath>(at, attribute, otherwise);
      return;
    }
    if (given.positional.empty()) raise("map requires a filter argument");
    const std::string_view name = text_argument(given.positional[0], "name of a filter");
    filter = filters().find(name);
    if (filter == nullptr) raise("No filter named {}.", in_quotes(name));
    given.positional = given.positional.subspan(1);
  }
  bool next(Interpreter& at, Value& value) override {
    if (!advance(at, value)) return false;
    value = path != nullptr ? path->of(at, value) : run(at, *filter, value, given);
    return true;
  }

  AttributePath* path = nullptr;
  const Builtin* filter = nullptr;
};

template <bool wanted, bool of_attribute>
struct Selected final : Lazy {
  using Lazy::Lazy;
  void prepare(Interpreter& at) override {
    if (of_attribute) {
      if (given.positional.empty()) raise("Missing parameter for attribute name");
      path = at.heap().make<AttributePath>(at, given.positional[0]);
      given.positional = given.positional.subspan(1);
    }
    if (given.positional.empty()) return;
    const std::string_view name = text_argument(given.positional[0], "name of a test");
    test = tests().find(name);
    if (test == nullptr) raise("No test named {}.", in_quotes(name));
    given.positional = given.positional.subspan(1);
  }
  bool next(Interpreter& at, Value& value) override {
    while (advance(at, value)) {
      const Value seen = path != nullptr ? path->of(at, value) : value;
      if (jinja::truth(test != nullptr ? run(at, *test, seen, given) : seen) == wanted) return true;
    }
    return false;
  }

  AttributePath* path = nullptr;
  const Builtin* test = nullptr;
};

template <class Kind>
Value lazy(Interpreter& at, const Call& call) {
  return Value::object(at.heap().make<Kind>(call.self, call.all));
}

// --- in order ------------------------------------------------------------------------------------------

struct Keyed {
  Value key, value;
};

// By key; equal ones stay as they are, also from the greatest on.
std::span<Keyed> sorted(Interpreter& at, std::span<Keyed> items, bool from_greatest) {
  at.heap().charge(items.size_bytes());  // what the sort needs besides
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return from_greatest ? less(at.heap(), b.key, a.key) : less(at.heap(), a.key, b.key);
  });
  at.heap().refund(items.size_bytes());
  return items;
}

std::span<Keyed> keyed(Interpreter& at, std::span<const Value> items, const AttributePath& path) {
  Keyed* out = at.heap().array<Keyed>(items.size());
  for (size_t i = 0; i < items.size(); ++i) out[i] = {path.of(at, items[i]), items[i]};
  at.heap().step(items.size());
  return {out, items.size()};
}

Value values_of(Interpreter& at, std::span<const Keyed> items) {
  Value* out = at.heap().array<Value>(items.size());
  for (size_t i = 0; i < items.size(); ++i) out[i] = items[i].value;
  return Value::list({out, items.size()});
}

// By the attributes that commas separate, the first one first; keys are lists even of one.
Value sort(Interpreter& at, const Call& call) {
  std::vector<AttributePath> paths;
  const bool lower = !flag(call, 1), names = call.given(2) && call[2].is(Kind::kText);
  std::string_view rest = names ? call[2].bytes() : "";
  if (!names) paths.emplace_back(at, call[2], Value(), lower);
  for (size_t comma = 0; names && comma != std::string_view::npos;) {
    comma = rest.find(',');
    paths.emplace_back(at, Value::text(rest.substr(0, comma)), Value(), lower);
    rest = comma == std::string_view::npos ? rest : rest.substr(comma + 1);
  }
  const auto items = listed(at, call.self);
  Keyed* all = at.heap().array<Keyed>(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    Value* keys = at.heap().array<Value>(paths.size());
    for (size_t j = 0; j < paths.size(); ++j) keys[j] = paths[j].of(at, items[i]);
    all[i] = {Value::list({keys, paths.size()}), items[i]};
  }
  return values_of(at, sorted(at, {all, items.size()}, flag(call, 0)));
}

Value dict_sort(Interpreter& at, const Call& call) {
  const std::string_view by = call.given(1) ? text_argument(call[1], "by") : "key";
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  if (call.self.undefined()) raise_undefined(call.self);
  if (!call.self.is(Kind::kDict)) raise("'{}' object has no attribute 'items'", type_name(call.self));
  Iterator* pairs = DictView(call.self.dict(), DictView::Part::kItems).iterate(at);
  const AttributePath path(at, Value::integer(int64_t{by == "value"}), Value(), !flag(call, 0));
  return values_of(at, sorted(at, keyed(at, listed(at, Value::object(pairs)), path), flag(call, 2)));
}

std::span<const Value> unique(Interpreter& at, const Call& call) {
  const AttributePath path(at, call[1], Value(), !flag(call, 0));
  const auto values = listed(at, call.self);
  Dict* seen = at.heap().make<Dict>(at.heap(), values.size());
  Items out(at.heap());
  for (const Value& value : values) {
    const Value key = path.of(at, value);
    hash(at.heap(), key);  // raises for what cannot be a key
    if (seen->find(at.heap(), key) != nullptr) continue;
    seen->set(at.heap(), key, Value::none());
    out.add(value);
  }
  return std::as_const(out).all();
}

template <Comparison better>
Value extreme(Interpreter& at, const Call& call) {
  const AttributePath path(at, call[1], Value(), !flag(call, 0));
  Iterator* values = iterate(at, call.self);
  Value out, best;
  if (!values->next(at, out)) return Value::undefined("No aggregated item, sequence was empty.");
  best = path.of(at, out);
  for (Value one; values->next(at, one);) {
    const Value key = path.of(at, one);
    if (!ordered(at.heap(), key, best, better)) continue;
    out = one;
    best = key;
  }
  return out;
}

Value group_by(Interpreter& at, const Call& call) {
  const Value otherwise = call.given(1) && !call[1].is(Kind::kNone) ? call[1] : Value();
  const AttributePath path(at, call[0], otherwise, !flag(call, 2));
  const AttributePath shown(at, call[0], otherwise);
  const auto items = sorted(at, keyed(at, listed(at, call.self), path), false);
  Items out(at.heap());
  for (size_t begin = 0, end = 0; begin < items.size(); begin = end) {
    while (end < items.size() && equal(at.heap(), items[begin].key, items[end].key)) ++end;
    Value* group = at.heap().array<Value>(2);
    group[0] = shown.of(at, items[begin].value);
    group[1] = values_of(at, items.subspan(begin, end - begin));
    out.add(Value::group({group, 2}));
  }
  return Value::list(out.all());
}

}  // namespace

AttributePath::AttributePath(Interpreter& at, const Value& attribute, const Value& otherwise, bool lower)
    : otherwise_(otherwise), lower_(lower) {
  if (attribute.missing() || attribute.is(Kind::kNone)) return;
  Items parts(at.heap());
  if (!attribute.is(Kind::kText)) {
    parts.add(attribute);
  } else {
    std::string_view rest = attribute.bytes();
    for (size_t dot = 0; dot != std::string_view::npos;) {
      dot = rest.find('.');
      const std::string_view name = rest.substr(0, dot);
      const bool index =
          !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == name.npos;
      parts.add(index ? Value::integer(int64_t{std::stoi(std::string(name))}) : attribute.part(name));
      rest = dot == std::string_view::npos ? rest : rest.substr(dot + 1);
    }
  }
  parts_ = parts.all();
}

Value AttributePath::of(Interpreter& at, const Value& element) const {
  Value out = element;
  for (const Value& part : parts_) {
    out = item(at, out, part);
    if (out.undefined() && !otherwise_.missing() && !otherwise_.is(Kind::kNone)) out = otherwise_;
  }
  return lower_ && out.is(Kind::kText) ? changed(at, out, Case::kLower) : out;
}

const std::vector<Builtin>& selection_filters() {
  static const std::vector<Builtin> table = {
      {"map", {"*"}, 0, lazy<Mapped>},
      {"select", {"*"}, 0, lazy<Selected<true, false>>},
      {"reject", {"*"}, 0, lazy<Selected<false, false>>},
      {"selectattr", {"*"}, 0, lazy<Selected<true, true>>},
      {"rejectattr", {"*"}, 0, lazy<Selected<false, true>>},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, sort},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, dict_sort},
      {"unique", {"case_sensitive", "attribute"}, 0, later<unique>},
      {"min", {"case_sensitive", "attribute"}, 0, extreme<Comparison::kLess>},
      {"max", {"case_sensitive", "attribute"}, 0, extreme<Comparison::kGreater>},
      {"groupby", {"attribute", "default", "case_sensitive"}, 1, group_by}};
  return table;
}

}  // namespace retort::data::jinja
