// Python's methods of str, as templates call them and filters use them. What they make of markup is markup.
#pragma once

#include <vector>

#include "data/templates/builtin.h"
#include "data/templates/text.h"

namespace retort::data::jinja {

const std::vector<Builtin>& text_methods();

// For filters of the same name:
Value changed(Interpreter& at, const Value& text, Case wanted);
Value replaced(Interpreter& at, const Value& text, std::string_view before, std::string_view after,
               int64_t count);
Value joined(Interpreter& at, std::string_view between,
             std::span<const Value> texts);  // any values, as str()
Value centered(Interpreter& at, const Value& text, int64_t width);
std::span<const Value> lines(Interpreter& at, const Value& text, bool keep_ends);

}  // namespace retort::data::jinja
