#include "data/templates/objects.h"

#include <fmt/format.h>

#include "data/templates/access.h"
#include "data/templates/builtin.h"
#include "data/templates/interpreter.h"
#include "data/templates/print.h"

namespace retort::data::jinja {
namespace {

struct RangeIterator final : Iterator {
  explicit RangeIterator(const Range& range) : range(range) {}
  bool next(Interpreter&, Value& value) override {
    if (place == range.count) return false;
    value = Value::integer(range.start + place++ * range.step);
    return true;
  }

  const Range& range;
  int64_t place = 0;
};

struct EntryIterator final : Iterator {
  EntryIterator(const Dict& dict, DictView::Part part) : dict(dict), part(part) {}
  bool next(Interpreter& at, Value& value) override {
    if (place == dict.size()) return false;
    const Dict::Entry& entry = dict.entries()[place++];
    if (part != DictView::Part::kItems) {
      value = part == DictView::Part::kKeys ? entry.key : entry.value;
      return true;
    }
    Value* pair = at.heap().array<Value>(2);
    pair[0] = entry.key;
    pair[1] = entry.value;
    value = Value::tuple({pair, 2});
    return true;
  }

  const Dict& dict;
  DictView::Part part;
  size_t place = 0;
};

Value cycler_next(Interpreter&, const Call& call) {
  auto& cycler = static_cast<Cycler&>(call.self.object());
  const Value out = cycler.items[cycler.at];
  cycler.at = (cycler.at + 1) % cycler.items.size();
  return out;
}

Value loop_cycle(Interpreter&, const Call& call) {
  const auto values = call.all.positional;
  if (values.empty()) raise("no items for cycling given");
  const auto& loop = static_cast<const Loop&>(call.self.object());
  return values[static_cast<size_t>(loop.index) % values.size()];
}

Value loop_changed(Interpreter& at, const Call& call) {
  auto& loop = static_cast<Loop&>(call.self.object());
  const Value now = Value::tuple(call.all.positional);
  if (loop.changed.is(Kind::kTuple) && equal(at.heap(), loop.changed, now)) return Value::boolean(false);
  loop.changed = now;
  return Value::boolean(true);
}

const Builtin* object_method(std::string_view name) {
  static const Registry<Builtin> table(
      "method of jinja2's objects",
      {{"next", {}, 0, cycler_next}, {"cycle", {"*"}, 0, loop_cycle}, {"changed", {"*"}, 0, loop_changed}});
  return table.find(name);
}

Value bound(Interpreter& at, std::string_view name, Object* self) {
  return Value::object(at.heap().make<Function>(*object_method(name), Value::object(self)));
}

}  // namespace

Value Object::call(Interpreter&, const Arguments&) { raise("'{}' object is not callable", type()); }
int64_t Object::length(Interpreter&) { raise("object of type '{}' has no len()", type()); }
void Object::print(Interpreter&, Buffer&) { raise("prints a {}, which Python writes as an address", type()); }

Value Function::call(Interpreter& at, const Arguments& arguments) { return run(at, row, self, arguments); }

Value MacroObject::call(Interpreter& at, const Arguments& arguments) {
  return at.call_macro(*this, arguments);
}

Value MacroObject::attribute(Interpreter&, std::string_view name) {
  if (name == "name") return syntax.name.empty() ? Value::none() : Value::text(syntax.name);
  for (const std::string_view other : {"arguments", "caller", "catch_kwargs", "catch_varargs"})
    if (name == other) raise("{} of a macro is not supported", name);
  return {};
}

void MacroObject::print(Interpreter&, Buffer& out) {
  out.add(syntax.name.empty() ? "<Macro anonymous>" : fmt::format("<Macro '{}'>", syntax.name));
}

Value Namespace::attribute(Interpreter& at, std::string_view name) {
  for (const Attribute* one = first; one != nullptr; one = one->next) {
    at.heap().step();
    if (one->name.is(Kind::kText) && one->name.bytes() == name) return one->value;
  }
  return {};
}

void Namespace::set(Heap& heap, const Value& name, const Value& value) {
  for (Attribute* one = first; one != nullptr; one = one->next)
    if (equal(heap, one->name, name)) {
      one->value = value;
      return;
    }
  Attribute* made = heap.make<Attribute>(name, value);
  (last == nullptr ? first : last->next) = made;
  last = made;
}

void Namespace::print(Interpreter& at, Buffer& out) {
  out.add("<Namespace {");
  for (const Attribute* one = first; one != nullptr; one = one->next) {
    if (one != first) out.add(", ");
    print_repr(at, out, one->name);
    out.add(": ");
    print_repr(at, out, one->value);
  }
  out.add("}>");
}

bool Range::equals(const Object& other) const {
  const auto* range = dynamic_cast<const Range*>(&other);
  return range != nullptr && range->count == count && (count == 0 || range->start == start) &&
         (count < 2 || range->step == step);
}

Value Range::item(Interpreter&, const Value& index) {
  if (!index.is_integral()) return {};
  const Integer place = index.integer() < 0 ? index.integer() + count : index.integer();
  if (place < 0 || place >= count) return {};
  return Value::integer(start + static_cast<int64_t>(place) * step);
}

Iterator* Range::iterate(Interpreter& at) { return at.heap().make<RangeIterator>(*this); }

void Range::print(Interpreter&, Buffer& out) {
  const int64_t stop = start + count * step;  // as Python has it but for the part of a last step
  out.add(step == 1 ? fmt::format("range({}, {})", start, stop)
                    : fmt::format("range({}, {}, {})", start, stop, step));
}

std::string_view DictView::type() const {
  return part == Part::kKeys ? "dict_keys" : part == Part::kValues ? "dict_values" : "dict_items";
}

Iterator* DictView::iterate(Interpreter& at) { return at.heap().make<EntryIterator>(dict, part); }

void DictView::print(Interpreter& at, Buffer& out) {
  out.add(type());
  out.add('(');
  print_repr(at, out, Value::list(listed(at, Value::object(this))));
  out.add(')');
}

const Value& Loop::ahead(Interpreter& at) {
  if (!looked && !iterator->next(at, next)) next = {};
  looked = true;
  return next;
}

bool Loop::advance(Interpreter& at) {
  Value value;
  if (looked) {
    value = next;
    looked = false;
    if (value.missing()) return false;
  } else if (!iterator->next(at, value)) {
    return false;
  }
  ++index;
  before = current;
  current = value;
  return true;
}

int64_t Loop::length(Interpreter& at) {
  if (count >= 0) return count;
  if (jinja::sized(source)) return count = jinja::length(at, source);
  const auto rest = listed(at, Value::object(iterator));
  iterator = at.heap().make<ItemIterator>(rest);
  const bool held = looked && !next.missing();
  return count = static_cast<int64_t>(rest.size()) + index + 1 + (held ? 1 : 0);
}

Value Loop::attribute(Interpreter& at, std::string_view name) {
  if (name == "index0") return Value::integer(index);
  if (name == "index") return Value::integer(index + 1);
  if (name == "first") return Value::boolean(index == 0);
  if (name == "last") return Value::boolean(ahead(at).missing());
  if (name == "length") return Value::integer(length(at));
  if (name == "revindex") return Value::integer(length(at) - index);
  if (name == "revindex0") return Value::integer(length(at) - index - 1);
  if (name == "depth") return Value::integer(depth + 1);
  if (name == "depth0") return Value::integer(depth);
  if (name == "previtem") return index == 0 ? Value::undefined("there is no previous item") : before;
  if (name == "nextitem") return ahead(at).missing() ? Value::undefined("there is no next item") : next;
  if (name == "cycle" || name == "changed") return bound(at, name, this);
  return {};
}

Value Loop::call(Interpreter& at, const Arguments& arguments) {
  if (recursive == nullptr) raise("The loop must have the 'recursive' marker to be called recursively.");
  if (arguments.positional.size() != 1 || !arguments.named.empty()) raise("loop() takes one argument");
  return at.call_loop(*recursive, frame, arguments.positional[0], depth + 1);
}

void Loop::print(Interpreter& at, Buffer& out) {
  out.add(fmt::format("<LoopContext {}/{}>", index + 1, length(at)));
}

Value Cycler::attribute(Interpreter& at, std::string_view name) {
  if (name == "reset") raise("cycler.reset is not supported");
  if (name == "next") return bound(at, name, this);
  return name == "current" ? items[this->at] : Value();
}

Value Joiner::call(Interpreter&, const Arguments&) {
  if (std::exchange(used, true)) return separator;
  return Value::text("");
}

bool Bytes::equals(const Object& other) const {
  const auto* that = dynamic_cast<const Bytes*>(&other);
  return that != nullptr && that->bytes == bytes;
}

void Bytes::print(Interpreter&, Buffer& out) {
  const char quote = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos ? '"' : '\'';
  out.add(fmt::format("b{}", quote));
  for (const char byte : bytes) {
    const auto c = static_cast<unsigned char>(byte);
    if (byte == quote || byte == '\\')
      out.add(fmt::format("\\{}", byte));
    else if (byte == '\n' || byte == '\r' || byte == '\t')
      out.add(byte == '\n' ? "\\n" : byte == '\r' ? "\\r" : "\\t");
    else if (c < 0x20 || c > 0x7E)
      out.add(fmt::format("\\x{:02x}", c));
    else
      out.add(byte);
  }
  out.add(quote);
}

bool ItemIterator::next(Interpreter&, Value& value) {
  if (items.empty()) return false;
  value = back ? items.back() : items.front();
  items = back ? items.first(items.size() - 1) : items.subspan(1);
  return true;
}

}  // namespace retort::data::jinja
