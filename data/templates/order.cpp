#include "data/templates/order.h"

#include <bit>
#include <cmath>
#include <compare>

#include "data/templates/objects.h"
#include "data/templates/raised.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

void check_depth(const Heap& heap, size_t depth) {
  if (depth > heap.limits().data_depth)
    raise("compares values nested deeper than {}, the limit", heap.limits().data_depth);
}

// Exact between integers and floats, as Python's.
std::partial_ordering compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() <=> b.integer();
  if (!a.is_integral() && !b.is_integral()) return a.real() <=> b.real();
  const bool swapped = a.is(Kind::kFloat);
  const double real = swapped ? a.real() : b.real();
  const Integer whole = swapped ? b.integer() : a.integer();
  if (std::isnan(real)) return std::partial_ordering::unordered;
  const double bound = std::ldexp(1.0, 127);
  std::partial_ordering order = std::partial_ordering::equivalent;
  if (real >= bound)
    order = std::partial_ordering::less;
  else if (real < -bound)
    order = std::partial_ordering::greater;
  else if (const auto truncated = static_cast<Integer>(real); truncated != whole)
    order = whole <=> truncated;
  else
    order = 0.0 <=> real - std::trunc(real);
  return swapped ? 0 <=> order : order;
}

bool equal_at(Heap& heap, const Value& a, const Value& b, size_t depth);

bool equal_items(Heap& heap, std::span<const Value> a, std::span<const Value> b, size_t depth) {
  check_depth(heap, depth);
  if (a.size() != b.size()) return false;
  if (a.data() == b.data()) return true;
  for (size_t i = 0; i < a.size(); ++i)
    if (!equal_at(heap, a[i], b[i], depth)) return false;
  return true;
}

bool equal_dicts(Heap& heap, const Dict& a, const Dict& b, size_t depth) {
  check_depth(heap, depth);
  if (&a == &b) return true;
  if (a.size() != b.size()) return false;
  for (const Dict::Entry& entry : a.entries()) {
    const Value* other = b.find(heap, entry.key);
    if (other == nullptr || !equal_at(heap, entry.value, *other, depth)) return false;
  }
  return true;
}

bool equal_at(Heap& heap, const Value& a, const Value& b, size_t depth) {
  heap.step();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kText:
      if (a.bytes().size() != b.bytes().size()) return false;
      heap.read(a.bytes().size());
      return a.bytes() == b.bytes();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(heap, a.items(), b.items(), depth + 1);
    case Kind::kDict:
      return equal_dicts(heap, a.dict(), b.dict(), depth + 1);
    case Kind::kObject:
      return a.object().equals(b.object());
    default:
      return true;  // undefined, none
  }
}

bool holds(std::partial_ordering order, Comparison sign) {
  switch (sign) {
    case Comparison::kLess:
      return order < 0;
    case Comparison::kLessEqual:
      return order <= 0;
    case Comparison::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

std::string_view spelling(Comparison sign) {
  switch (sign) {
    case Comparison::kLess:
      return "<";
    case Comparison::kLessEqual:
      return "<=";
    case Comparison::kGreater:
      return ">";
    default:
      return ">=";
  }
}

bool ordered_at(Heap& heap, const Value& a, const Value& b, Comparison sign, size_t depth) {
  heap.step();
  check_depth(heap, depth);
  if (a.undefined()) raise_undefined(a);
  if (b.undefined()) raise_undefined(b);
  if (a.is_number() && b.is_number()) return holds(compare_numbers(a, b), sign);
  if (a.is(Kind::kText) && b.is(Kind::kText)) {
    heap.read(std::min(a.bytes().size(), b.bytes().size()));
    return holds(a.bytes() <=> b.bytes(), sign);  // the order of UTF-8 is that of code points
  }
  if (a.kind() == b.kind() && a.is_sequence()) {
    const size_t common = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < common; ++i)
      if (!equal_at(heap, a.items()[i], b.items()[i], depth + 1))
        return ordered_at(heap, a.items()[i], b.items()[i], sign, depth + 1);
    return holds(a.items().size() <=> b.items().size(), sign);
  }
  raise("'{}' not supported between instances of '{}' and '{}'", spelling(sign), type_name(a), type_name(b));
}

size_t mix(size_t seed, size_t value) { return (seed ^ value) * 0x9E3779B97F4A7C15u + (seed >> 29); }

size_t hash_at(Heap& heap, const Value& value, size_t depth) {
  heap.step();
  check_depth(heap, depth);
  switch (value.kind()) {
    case Kind::kBool:
    case Kind::kInteger:
      return mix(1, static_cast<size_t>(value.integer()));
    case Kind::kFloat: {
      const double real = value.real();
      if (real == std::trunc(real) && std::fabs(real) < std::ldexp(1.0, 126))
        return mix(1, static_cast<size_t>(static_cast<Integer>(real)));
      return mix(2, std::bit_cast<uint64_t>(real));
    }
    case Kind::kText:
      heap.read(value.bytes().size());
      return hash_text(value.bytes());
    case Kind::kTuple: {
      size_t out = 3;
      for (const Value& item : value.items()) out = mix(out, hash_at(heap, item, depth + 1));
      return out;
    }
    case Kind::kObject:
      return mix(4, reinterpret_cast<size_t>(&value.object()));
    case Kind::kList:
    case Kind::kDict:
      raise("unhashable type: '{}'", type_name(value));
    default:
      return static_cast<size_t>(value.kind());
  }
}

bool hashable_at(Heap& heap, const Value& value, size_t depth) {
  heap.step();
  check_depth(heap, depth);
  if (value.is(Kind::kList) || value.is(Kind::kDict)) return false;
  if (!value.is(Kind::kTuple)) return true;
  for (const Value& item : value.items())
    if (!hashable_at(heap, item, depth + 1)) return false;
  return true;
}

}  // namespace

bool equal(Heap& heap, const Value& a, const Value& b) { return equal_at(heap, a, b, 0); }

bool ordered(Heap& heap, const Value& a, const Value& b, Comparison sign) {
  return ordered_at(heap, a, b, sign, 0);
}

bool hashable(Heap& heap, const Value& value) { return hashable_at(heap, value, 0); }

size_t hash(Heap& heap, const Value& value) { return hash_at(heap, value, 0); }

}  // namespace retort::data::jinja
