// Which variable each name of a template means, as jinja2 decides it before anything runs: every frame (the
// template, a loop, a macro, a block, ...; not an if) knows the names that are set or first read in it, and how
// each begins: as the outer frame's variable of that name, from outside, or unset. So a name that is set in a
// loop is the loop's, and one that is set later in a frame is unset until then. Fills in slots and layouts.
#pragma once

#include "data/templates/syntax.h"

namespace retort::data::jinja {

void resolve_names(Syntax& syntax);

}  // namespace retort::data::jinja
