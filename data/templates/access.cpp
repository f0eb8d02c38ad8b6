#include "data/templates/access.h"

#include <algorithm>

#include "data/templates/interpreter.h"
#include "data/templates/print.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

bool is_dunder(std::string_view name) {
  return name.starts_with("__") && name.ends_with("__") && name.size() > 4;
}

Value undefined_element(Interpreter& at, const Value& owner, const Value& index) {
  if (index.is(Kind::kText)) return Value::undefined_attribute(at.heap(), owner, index.bytes());
  return Value::undefined(
      at.heap().copy(fmt::format("{} has no element {}", owner_name(owner), repr_of(at, index))));
}

// owner[index] of Python; missing where that raises TypeError or LookupError.
Value python_item(Interpreter& at, const Value& owner, const Value& index) {
  Heap& heap = at.heap();
  if (owner.undefined()) raise_undefined(owner);
  if (owner.is(Kind::kObject)) return owner.object().item(at, index);
  if (owner.is(Kind::kDict)) {
    if (!hashable(heap, index)) return {};
    const Value* found = owner.dict().find(heap, index);
    return found == nullptr ? Value() : *found;
  }
  if (!index.is_integral()) return {};
  Integer place = index.integer();
  if (owner.is_sequence()) {
    const auto items = owner.items();
    if (place < 0) place += static_cast<Integer>(items.size());
    if (place < 0 || place >= static_cast<Integer>(items.size())) return {};
    return items[static_cast<size_t>(place)];
  }
  if (!owner.is(Kind::kText)) return {};
  const std::string_view bytes = owner.bytes();
  if (!owner.ascii()) heap.read(4 * bytes.size());
  const Integer count = characters(bytes, owner.ascii());
  if (place < 0) place += count;
  if (place < 0 || place >= count) return {};
  const size_t begin = byte_of(bytes, static_cast<int64_t>(place), owner.ascii());
  size_t size = 1;
  if (!owner.ascii()) first_of(bytes.substr(begin), size);
  return owner.part(bytes.substr(begin, size));
}

// The indices that a slice takes of `count` elements.
struct Taken {
  int64_t start, step, count;
};

Taken taken(const Value& start, const Value& stop, const Value& step, int64_t count) {
  const auto number = [](const Value& value) -> std::optional<int64_t> {
    if (value.missing() || value.is(Kind::kNone)) return std::nullopt;
    if (!value.is_integral()) raise("slice indices must be integers or None or have an __index__ method");
    constexpr Integer kFar = int64_t{1} << 40;
    return static_cast<int64_t>(std::clamp(value.integer(), -kFar, kFar));
  };
  const int64_t stride = number(step).value_or(1);
  if (stride == 0) raise("slice step cannot be zero");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? count : count - 1;
  const auto bounded = [&](std::optional<int64_t> value, int64_t absent) {
    if (!value) return absent;
    return std::clamp(*value < 0 ? *value + count : *value, low, high);
  };
  const int64_t first = bounded(number(start), stride > 0 ? low : high);
  const int64_t last = bounded(number(stop), stride > 0 ? high : low);
  const int64_t distance = stride > 0 ? last - first : first - last, size = stride > 0 ? stride : -stride;
  return {first, stride, distance > 0 ? (distance - 1) / size + 1 : 0};
}

Value slice_of_text(Heap& heap, const Value& owner, const Value& start, const Value& stop,
                    const Value& step) {
  const std::string_view bytes = owner.bytes();
  heap.read(owner.ascii() ? 0 : 4 * bytes.size());
  const Taken parts = taken(start, stop, step, characters(bytes, owner.ascii()));
  if (parts.count == 0) return owner.part(bytes.substr(0, 0));
  if (parts.step == 1) {
    const size_t begin = byte_of(bytes, parts.start, owner.ascii());
    const std::string_view rest = bytes.substr(begin);
    return owner.part(rest.substr(0, byte_of(rest, parts.count, owner.ascii())));
  }
  std::vector<uint32_t> begins;  // of characters
  if (!owner.ascii()) {
    const size_t count = static_cast<size_t>(characters(bytes, false)) + 1;
    heap.charge(count * sizeof(uint32_t));
    begins.reserve(count);
    for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
      begins.push_back(static_cast<uint32_t>(i));
      first_of(bytes.substr(i), size);
    }
    begins.push_back(static_cast<uint32_t>(bytes.size()));
  }
  Buffer out(heap);
  heap.step(static_cast<uint64_t>(parts.count) / 4);
  for (int64_t i = 0, at = parts.start; i < parts.count; ++i, at += parts.step) {
    const auto place = static_cast<size_t>(at);
    out.add(owner.ascii() ? bytes.substr(place, 1)
                          : bytes.substr(begins[place], begins[place + 1] - begins[place]));
  }
  if (!owner.ascii()) heap.refund(begins.capacity() * sizeof(uint32_t));
  return Value::text(out.take(), owner.markup());
}

struct CharacterIterator final : Iterator {
  explicit CharacterIterator(const Value& text) : text(text) {}
  bool next(Interpreter&, Value& value) override {
    const std::string_view rest = text.bytes().substr(place);
    if (rest.empty()) return false;
    size_t size = 1;
    if (!text.ascii()) first_of(rest, size);
    value = text.part(rest.substr(0, size)).as_markup(false);
    place += size;
    return true;
  }

  Value text;
  size_t place = 0;
};

}  // namespace

Value own_attribute(Interpreter& at, const Value& owner, std::string_view name) {
  Heap& heap = at.heap();
  if (is_dunder(name) || changes_value(owner, name)) return Value::unsafe_attribute(heap, owner, name);
  if (owner.undefined()) raise_undefined(owner);
  if (owner.is(Kind::kObject)) return owner.object().attribute(at, name);
  if (owner.is_group() && (name == "grouper" || name == "list")) return owner.items()[name == "list" ? 1 : 0];
  if (const Builtin* method = find_method(owner, name))
    return Value::object(heap.make<Function>(*method, owner));
  return {};
}

Value attribute(Interpreter& at, const Value& owner, std::string_view name) {
  if (const Value found = own_attribute(at, owner, name); !found.missing()) return found;
  if (owner.is(Kind::kDict))
    if (const Value* found = owner.dict().find(at.heap(), name)) return *found;
  return Value::undefined_attribute(at.heap(), owner, name);
}

Value item(Interpreter& at, const Value& owner, const Value& index) {
  if (const Value found = python_item(at, owner, index); !found.missing()) return found;
  if (index.is(Kind::kText))
    if (const Value found = own_attribute(at, owner, index.bytes()); !found.missing()) return found;
  return undefined_element(at, owner, index);
}

Value slice(Interpreter& at, const Value& owner, const Value& start, const Value& stop, const Value& step) {
  Heap& heap = at.heap();
  if (owner.undefined()) raise_undefined(owner);
  if (owner.is(Kind::kText)) return slice_of_text(heap, owner, start, stop, step);
  if (owner.is_sequence()) {
    const auto items = owner.items();
    const Taken parts = taken(start, stop, step, static_cast<int64_t>(items.size()));
    const auto count = static_cast<size_t>(parts.count);
    std::span<const Value> out = items.subspan(0, 0);
    if (count > 0 && parts.step == 1) {
      out = items.subspan(static_cast<size_t>(parts.start), count);
    } else if (count > 0) {
      heap.step(count);
      Value* made = heap.array<Value>(count);
      for (size_t i = 0; i < count; ++i)
        made[i] = items[static_cast<size_t>(parts.start + static_cast<int64_t>(i) * parts.step)];
      out = {made, count};
    }
    return owner.is(Kind::kList) ? Value::list(out) : Value::tuple(out);
  }
  if (owner.is(Kind::kDict)) raise("unhashable type: 'slice'");
  if (owner.is(Kind::kObject))
    if (const auto* range = dynamic_cast<const Range*>(&owner.object())) {
      const Taken parts = taken(start, stop, step, range->count);
      return Value::object(heap.make<Range>(range->start + parts.start * range->step,
                                            parts.count > 1 ? parts.step * range->step : 1, parts.count));
    }
  raise("'{}' object is not subscriptable", type_name(owner));
}

bool contains(Interpreter& at, const Value& owner, const Value& value) {
  Heap& heap = at.heap();
  switch (owner.kind()) {
    case Kind::kText:
      if (!value.is(Kind::kText))
        raise("'in <string>' requires string as left operand, not {}", type_name(value));
      return find(heap, owner.bytes(), value.bytes()) != std::string_view::npos;
    case Kind::kDict:
      hash(heap, value);  // raises for what cannot be a key
      return owner.dict().find(heap, value) != nullptr;
    default:
      break;
  }
  if (!iterable(at, owner)) raise("argument of type '{}' is not iterable", type_name(owner));
  Iterator* values = iterate(at, owner);
  for (Value one; values->next(at, one);)
    if (equal(heap, one, value)) return true;
  return false;
}

bool compared(Interpreter& at, Comparison sign, const Value& a, const Value& b) {
  switch (sign) {
    case Comparison::kEqual:
      return equal(at.heap(), a, b);
    case Comparison::kUnequal:
      return !equal(at.heap(), a, b);
    case Comparison::kIn:
      return contains(at, b, a);
    case Comparison::kNotIn:
      return !contains(at, b, a);
    default:
      return ordered(at.heap(), a, b, sign);
  }
}

bool sized(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kText:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return true;
    case Kind::kObject:
      return value.object().sized();
    default:
      return false;
  }
}

int64_t length(Interpreter& at, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kText:
      at.heap().read(value.ascii() ? 0 : 4 * value.bytes().size());
      return characters(value.bytes(), value.ascii());
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Kind::kObject:
      return value.object().length(at);
    default:
      raise("object of type '{}' has no len()", type_name(value));
  }
}

bool iterable(Interpreter& at, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kText:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return true;
    case Kind::kObject:
      return value.object().iterate(at) != nullptr;
    default:
      return false;
  }
}

Iterator* iterate(Interpreter& at, const Value& value) {
  Heap& heap = at.heap();
  switch (value.kind()) {
    case Kind::kUndefined:
      return heap.make<ItemIterator>(std::span<const Value>());
    case Kind::kText:
      return heap.make<CharacterIterator>(value);
    case Kind::kList:
    case Kind::kTuple:
      return heap.make<ItemIterator>(value.items());
    case Kind::kDict:
      return DictView(value.dict(), DictView::Part::kKeys).iterate(at);
    case Kind::kObject:
      if (Iterator* values = value.object().iterate(at)) return values;
      break;
    default:
      break;
  }
  raise("'{}' object is not iterable", type_name(value));
}

std::span<const Value> listed(Interpreter& at, const Value& value) {
  if (value.is_sequence()) return value.items();
  Iterator* values = iterate(at, value);
  Items items(at.heap());
  for (Value one; values->next(at, one);) items.add(one);
  return items.all();
}

}  // namespace retort::data::jinja
