// Values as text: Python's str() and repr(), and json.dumps() as transformers calls it. Shared by printing,
// filters and messages. Time in proportion to what is written; deep values raise.
#pragma once

#include <string>
#include <string_view>

#include "data/templates/objects.h"

namespace retort::data::jinja {

void print(Interpreter& at, Buffer& out, const Value& value);
void print_repr(Interpreter& at, Buffer& out, const Value& value, size_t depth = 0);
// str(value) as a value; a text is itself.
Value text_of(Interpreter& at, const Value& value);
std::string_view repr_of(Interpreter& at, const Value& value);

struct JsonForm {
  bool ascii = false, indented = false, sorted = false;
  std::string_view indent, item = ", ", key = ": ";
};
void print_json(Interpreter& at, Buffer& out, const Value& value, const JsonForm& form);

}  // namespace retort::data::jinja
