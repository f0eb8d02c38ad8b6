// Python's arithmetic and its spelling of numbers. Integers that would leave 128 bits raise. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/templates/syntax.h"

namespace retort::data::jinja {

// a OPERATOR b of any values: numbers, texts, lists; raises Python's TypeError texts for what does not fit.
Value arithmetic(Interpreter& at, Operator operation, const Value& a, const Value& b);
Value negated(Heap& heap, const Value& value, bool negative);

// The shortest spelling that reads back: 1.0, 1e-07, 1e+16, inf, nan.
std::string spelled(double value);
std::string spelled(Integer value);
// int(text, base) and float(text); nothing where Python raises ValueError.
std::optional<Integer> parse_integer(std::string_view text, int base);
std::optional<double> parse_real(std::string_view text);
// A float cut towards zero; raises for infinity, NaN, and what 128 bits do not hold.
Integer truncated(double value);
// round(value, digits) for no negative digits: exact decimal, half to even.
double rounded(double value, int64_t digits);

}  // namespace retort::data::jinja
