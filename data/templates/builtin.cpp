#include "data/templates/builtin.h"

#include <algorithm>

#include "data/templates/interpreter.h"
#include "data/templates/text.h"

namespace retort::data::jinja {
namespace {

// The rows' parameters are few, so they are looked through.
void bind(const Builtin& row, const Arguments& given, Value* bound) {
  const size_t count = row.parameters.size();
  if (given.positional.size() > count)
    raise("{}() takes at most {} arguments ({} given)", row.name, count, given.positional.size());
  std::copy(given.positional.begin(), given.positional.end(), bound);
  for (const Named& one : given.named) {
    const auto found = std::find(row.parameters.begin(), row.parameters.end(), one.name);
    if (found == row.parameters.end())
      raise("{}() got an unexpected keyword argument {}", row.name, in_quotes(one.name));
    Value& place = bound[found - row.parameters.begin()];
    if (!place.missing()) raise("{}() got multiple values for argument {}", row.name, in_quotes(one.name));
    place = one.value;
  }
  for (size_t i = 0; i < row.required; ++i)
    if (bound[i].missing())
      raise("{}() missing required argument {}", row.name, in_quotes(row.parameters[i]));
}

}  // namespace

Value run(Interpreter& at, const Builtin& row, const Value& self, const Arguments& arguments) {
  if (row.parameters.size() == 1 && row.parameters[0] == "*") return row.run(at, {self, {}, arguments});
  Value* bound = at.heap().array<Value>(row.parameters.size());
  bind(row, arguments, bound);
  return row.run(at, {self, {bound, row.parameters.size()}, arguments});
}

int64_t integer_argument(const Value& value, std::string_view what) {
  if (value.undefined()) raise_undefined(value);
  if (!value.is_integral()) raise("{} must be an integer, not {}", what, type_name(value));
  constexpr Integer kFar = int64_t{1} << 60;
  return static_cast<int64_t>(std::clamp(value.integer(), -kFar, kFar));
}

std::string_view text_argument(const Value& value, std::string_view what) {
  if (!value.is(Kind::kText)) raise("{} must be str, not {}", what, type_name(value));
  return value.bytes();
}

}  // namespace retort::data::jinja
