#include "data/templates/filters.h"

#include "data/templates/interpreter.h"

namespace retort::data::jinja {

bool Later::next(Interpreter& at, Value& value) {
  const Interpreter::Deeper deeper(at);
  if (make != nullptr) rest = std::exchange(make, nullptr)(at, {self, bound, given});
  if (rest.empty()) return false;
  value = rest.front();
  rest = rest.subspan(1);
  return true;
}

Value later(Interpreter& at, Later::Make make, const Call& call) {
  return Value::object(at.heap().make<Later>(make, call));
}

const Registry<Builtin>& filters() {
  static const Registry<Builtin> table("filter", [] {
    std::vector<Builtin> rows;
    for (const auto* part : {&text_filters(), &sequence_filters(), &selection_filters(), &value_filters()})
      rows.insert(rows.end(), part->begin(), part->end());
    return rows;
  }());
  return table;
}

}  // namespace retort::data::jinja
