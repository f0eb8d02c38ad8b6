// Python's equality, order, membership and hashes of values. Long and nested values count as steps; those
// nested deeper than the limit raise. Pure functions otherwise.
#pragma once

#include <cstddef>

#include "data/templates/value.h"

namespace retort::data::jinja {

enum class Comparison { kEqual, kUnequal, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

bool equal(Heap& heap, const Value& a, const Value& b);
// a < b, a <= b, a > b, a >= b; raises for values without an order, naming `sign`.
bool ordered(Heap& heap, const Value& a, const Value& b, Comparison sign);
inline bool less(Heap& heap, const Value& a, const Value& b) {
  return ordered(heap, a, b, Comparison::kLess);
}

bool hashable(Heap& heap, const Value& value);
// Equal values have equal hashes; raises for those that are not hashable.
size_t hash(Heap& heap, const Value& value);

}  // namespace retort::data::jinja
