// What a caller has as JSON, as values of the language. Texts are not copied: the JSON must outlive the values.
#pragma once

#include "data/templates/value.h"
#include "formats/json.h"

namespace retort::data::jinja {

// `messages`: the objects of a list are marked as messages 0, 1, ...
Value from_json(Heap& heap, const formats::Json& json, bool messages = false);

}  // namespace retort::data::jinja
