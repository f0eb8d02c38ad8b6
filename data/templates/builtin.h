// What the language brings along: filters, tests, functions, and the methods of values, each a function and a
// row of a table. A row names its parameters, so that arguments by place and by name both reach the function,
// in the row's order; those from `required` on may be missing. {"*"}: the function reads the arguments itself.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/registry.h"
#include "data/templates/objects.h"

namespace retort::data::jinja {

struct Call {
  Value self;  // what is filtered, tested, or has the method
  std::span<const Value> bound;
  const Arguments& all;

  const Value& operator[](size_t parameter) const { return bound[parameter]; }
  bool given(size_t parameter) const { return !bound[parameter].missing(); }
};

struct Builtin {
  std::string name;
  std::vector<std::string_view> parameters;
  size_t required;
  Value (*run)(Interpreter& at, const Call& call);
};

// Binds the arguments and runs; raises as Python does when they do not fit.
Value run(Interpreter& at, const Builtin& row, const Value& self, const Arguments& arguments);

const Registry<Builtin>& filters();    // data/templates/filters.cpp
const Registry<Builtin>& tests();      // data/templates/tests.cpp
const Registry<Builtin>& functions();  // data/templates/functions.cpp
// Of texts, lists, tuples and dicts; null for a name that their Python type has not.
const Builtin* find_method(const Value& value, std::string_view name);  // data/templates/methods.cpp
// Names that jinja2's sandbox forbids, as append() of a list.
bool changes_value(const Value& value, std::string_view name);

// Of an argument; raise naming it.
int64_t integer_argument(const Value& value, std::string_view what);
std::string_view text_argument(const Value& value, std::string_view what);

}  // namespace retort::data::jinja
