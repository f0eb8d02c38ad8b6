// The functions that a template finds: jinja2's own and transformers' two. A function and a row each.
#include "data/templates/access.h"
#include "data/templates/builtin.h"
#include "data/templates/format.h"
#include "data/templates/interpreter.h"
#include "data/templates/print.h"

namespace retort::data::jinja {
namespace {

Value range(Interpreter& at, const Call& call) {
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i)
    if (call.given(i)) {
      if (!call[i].is_integral()) {
        if (call[i].undefined()) raise_undefined(call[i]);
        raise("'{}' object cannot be interpreted as an integer", type_name(call[i]));
      }
      bounds[i] = integer_argument(call[i], "range() arg");
    }
  const int64_t start = call.given(1) ? bounds[0] : 0, stop = call.given(1) ? bounds[1] : bounds[0];
  const int64_t step = bounds[2], distance = step > 0 ? stop - start : start - stop;
  if (step == 0) raise("range() arg 3 must not be zero");
  const int64_t count = distance > 0 ? (distance - 1) / std::abs(step) + 1 : 0;
  const int64_t most = at.heap().limits().range;
  if (count > most) raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", most);
  return Value::object(at.heap().make<Range>(start, step, count));
}

// dict(mapping or pairs, name=value, ...), for dict() and namespace().
Dict* make_dict(Interpreter& at, const Call& call, std::string_view name) {
  Heap& heap = at.heap();
  if (call.all.positional.size() > 1)
    raise("{} expected at most 1 argument, got {}", name, call.all.positional.size());
  std::span<const Value> pairs;
  std::span<const Dict::Entry> entries;
  if (!call.all.positional.empty()) {
    const Value& source = call.all.positional[0];
    if (source.is(Kind::kDict))
      entries = source.dict().entries();
    else
      pairs = listed(at, source);
  }
  Dict* out = heap.make<Dict>(heap, pairs.size() + entries.size() + call.all.named.size());
  for (const Dict::Entry& entry : entries) out->set(heap, entry.key, entry.value);
  for (const Value& pair : pairs) {
    const auto items = listed(at, pair);
    if (items.size() != 2)
      raise("dictionary update sequence element has length {}; 2 is required", items.size());
    hash(heap, items[0]);  // raises for what cannot be a key
    out->set(heap, items[0], items[1]);
  }
  for (const Named& one : call.all.named) out->set(heap, Value::text(one.name), one.value);
  return out;
}

Value dict(Interpreter& at, const Call& call) { return Value::dict(make_dict(at, call, "dict")); }

Value name_space(Interpreter& at, const Call& call) {
  auto* out = at.heap().make<Namespace>();
  for (const Dict::Entry& entry : make_dict(at, call, "namespace")->entries())
    out->set(at.heap(), entry.key, entry.value);
  return Value::object(out);
}

Value cycler(Interpreter& at, const Call& call) {
  if (call.all.positional.empty()) raise("at least one item has to be provided");
  return Value::object(at.heap().make<Cycler>(call.all.positional));
}

Value joiner(Interpreter& at, const Call& call) {
  return Value::object(at.heap().make<Joiner>(call.given(0) ? text_of(at, call[0]) : Value::text(", ")));
}

Value lipsum(Interpreter&, const Call&) { raise("lipsum() is not supported: it is random"); }

Value raise_exception(Interpreter& at, const Call& call) {
  constexpr size_t kLongest = 100'000;
  raise("{}", text_of(at, call[0]).bytes().substr(0, kLongest));
}

Value strftime_now(Interpreter& at, const Call& call) {
  const std::string_view format = text_argument(call[0], "strftime_now() argument");
  at.heap().read(256 * format.size());
  return Value::text(at.heap().copy(formatted_time(at.clock(), format)));
}

}  // namespace

const Registry<Builtin>& functions() {
  static const Registry<Builtin> table("function", {{"range", {"start", "stop", "step"}, 1, range},
                                                    {"dict", {"*"}, 0, dict},
                                                    {"namespace", {"*"}, 0, name_space},
                                                    {"cycler", {"*"}, 0, cycler},
                                                    {"joiner", {"sep"}, 0, joiner},
                                                    {"lipsum", {"n", "html", "min", "max"}, 0, lipsum},
                                                    {"raise_exception", {"message"}, 1, raise_exception},
                                                    {"strftime_now", {"format"}, 1, strftime_now}});
  return table;
}

}  // namespace retort::data::jinja
