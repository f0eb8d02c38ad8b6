// What a template may take. It is code that came with a model file, so reading and rendering end within these
// whatever it holds; no real template nears them. Going beyond is a DataError that names the place and the
// limit. A step is an expression, a statement, an element, or some tens of bytes of text that are looked at.
#pragma once

#include <cstddef>
#include <cstdint>

namespace retort::data {

struct TemplateLimits {
  size_t source = size_t{1} << 20;   // bytes of a template
  size_t nodes = 100'000;            // expressions and statements in it
  size_t nesting = 200;              // brackets and blocks within each other
  size_t height = 500;               // operations within each other: a + b + c is two
  size_t depth = 1'500;              // of evaluation: macros, loops and expressions within each other
  size_t data_depth = 200;           // lists and dicts within each other, where they are printed or compared
  uint64_t steps = 10'000'000;       // of a rendering
  size_t memory = size_t{80} << 20;  // bytes of a rendering's values and texts
  size_t text = size_t{64} << 20;    // bytes of any one text
  int64_t range = 100'000;           // elements of range(), as in jinja2's sandbox
};

}  // namespace retort::data
