// Python's ways to put values into a text: "%s" % value, "{}".format(value) with format specifications, and
// strftime. Widths count against the limits before anything is made. Throws Raised with Python's words.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "data/templates/objects.h"

namespace retort::data::jinja {

// format % values: a tuple's, a dict's by name, or one.
Value percent_formatted(Interpreter& at, const Value& format, const Value& values);
// format.format(...).
Value brace_formatted(Interpreter& at, const Value& format, const Arguments& arguments);
// In the C locale, whatever the process's is.
std::string formatted_time(const std::tm& time, std::string_view format);

}  // namespace retort::data::jinja
