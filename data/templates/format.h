// Python's ways to put values into a text, as far as templates use them: "%s" % value with s, r, d, i and f,
// "{}".format(value) with fields by place or name and a specification [[fill]align][sign][0][width][.precision][s|d|f];
// and strftime. The rest of Python's is refused by name. Widths count against the limits before anything is
// made. Throws Raised, with Python's words where Python raises.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "data/templates/objects.h"

namespace retort::data::jinja {

// format % values: a tuple's, or one.
Value percent_formatted(Interpreter& at, const Value& format, const Value& values);
// format.format(...).
Value brace_formatted(Interpreter& at, const Value& format, const Arguments& arguments);
// In the C locale, whatever the process's is.
std::string formatted_time(const std::tm& time, std::string_view format);

}  // namespace retort::data::jinja
