// Reads a template: the statements around its expressions, then what each name means. What is not supported is
// refused here, by name and place, whether or not a conversation would reach it:
//   include, import, from, extends      there is nothing to load
//   autoescape, scoped and required blocks, self, super
//   filters and tests without a row in their tables
// Throws Raised with the place.
#pragma once

#include <memory>
#include <string_view>

#include "data/templates/limits.h"
#include "data/templates/syntax.h"

namespace retort::data::jinja {

std::unique_ptr<const Syntax> parse(std::string_view source, const TemplateLimits& limits);

}  // namespace retort::data::jinja
