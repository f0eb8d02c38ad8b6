// What Python and jinja2's sandbox let one ask of any value: attributes, elements, parts, length, membership,
// and its values one after another. Throws Raised with Python's words.
#pragma once

#include <optional>
#include <string_view>

#include "data/templates/objects.h"
#include "data/templates/order.h"

namespace retort::data::jinja {

// getattr() within the sandbox's rules; missing where Python has no such attribute.
Value own_attribute(Interpreter& at, const Value& owner, std::string_view name);
// owner.name: the attribute, else the key. Undefined where there is neither, or the sandbox forbids it.
Value attribute(Interpreter& at, const Value& owner, std::string_view name);
// owner[index]: the element or key, else the attribute.
Value item(Interpreter& at, const Value& owner, const Value& index);
// owner[start:stop:step]; missing ends are left out.
Value slice(Interpreter& at, const Value& owner, const Value& start, const Value& stop, const Value& step);
bool contains(Interpreter& at, const Value& owner, const Value& value);
bool compared(Interpreter& at, Comparison sign, const Value& a, const Value& b);

int64_t length(Interpreter& at, const Value& value);
bool iterable(Interpreter& at, const Value& value);
bool sized(const Value& value);
Iterator* iterate(Interpreter& at, const Value& value);
// All of them, in memory.
std::span<const Value> listed(Interpreter& at, const Value& value);

}  // namespace retort::data::jinja
