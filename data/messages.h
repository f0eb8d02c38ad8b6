// Fields of a record: texts, and conversations as lists of messages. Pure functions. DataError naming `where`, the
// field and the rule.
#pragma once

#include <string>

#include "formats/json.h"

namespace retort::data {

// The field; one that is missing is named with its nearest.
const formats::Json& field_of(const formats::Json& record, const std::string& name, const std::string& where);
// Text; null is "".
std::string text_field(const formats::Json& record, const std::string& name, const std::string& where);
// [{"role", "content"}, ...], or ShareGPT's {"from", "value"} with its names of roles. A shipped template takes
// only those two texts; a model's own takes a message as it is, with tool calls and what else it holds.
formats::Json messages_of(const formats::Json& list, bool shipped, const std::string& where);

}  // namespace retort::data
