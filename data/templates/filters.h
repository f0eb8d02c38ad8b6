// The filters, by what they work on. A filter is a function and a row of its file's table; filters.cpp puts the
// tables together. What jinja2 has beside them (random, urlize, wordwrap, ...) is refused by name.
#pragma once

#include <vector>

#include "data/templates/builtin.h"

namespace retort::data::jinja {

const std::vector<Builtin>& text_filters();
const std::vector<Builtin>& sequence_filters();   // of everything that has elements
const std::vector<Builtin>& selection_filters();  // map, select and their like, and sorting
const std::vector<Builtin>& value_filters();      // numbers, defaults, JSON

// What `attribute='a.b.0'` of a filter takes from each element.
class AttributePath {
 public:
  // Missing or none: the element itself. `otherwise` stands for what is undefined, unless missing.
  AttributePath(Interpreter& at, const Value& attribute, const Value& otherwise = {}, bool lower = false);
  Value of(Interpreter& at, const Value& element) const;

 private:
  std::span<const Value> parts_;
  Value otherwise_;
  bool lower_;
};

// A filter that Python has as a generator: what it gives is made when the first element is asked for.
struct Later final : Iterator {
  using Make = std::span<const Value> (*)(Interpreter& at, const Call& call);
  Later(Make make, const Call& call) : make(make), self(call.self), bound(call.bound), given(call.all) {}
  bool next(Interpreter& at, Value& value) override;

  Make make;
  Value self;
  std::span<const Value> bound;
  Arguments given;
  std::span<const Value> rest;
};
Value later(Interpreter& at, Later::Make make, const Call& call);
template <Later::Make make>
Value later(Interpreter& at, const Call& call) {
  return later(at, make, call);
}

}  // namespace retort::data::jinja
