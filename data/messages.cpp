#include "data/messages.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "core/nearest.h"

namespace retort::data {

using formats::Json;

const Json& field_of(const Json& record, const std::string& name, const std::string& where) {
  const auto found = record.find(name);
  if (found == record.end()) {
    std::vector<std::string> known;
    for (const auto& item : record.items()) known.push_back(item.key());
    fail<DataError>("{}: field \"{}\" is missing{} (fields: {})", where, name, did_you_mean(name, known),
                    fmt::join(known, ", "));
  }
  return *found;
}

std::string text_field(const Json& record, const std::string& name, const std::string& where) {
  const Json& value = field_of(record, name, where);
  if (value.is_null()) return {};
  check<DataError>(value.is_string(), "{}: field \"{}\" must be text, got {}", where, name,
                   value.type_name());
  return value.get<std::string>();
}

Json messages_of(const Json& list, bool shipped, const std::string& where) {
  check<DataError>(list.is_array() && !list.empty(), "{}: messages must be a list of at least one, got {}",
                   where, list.is_array() ? "an empty one" : list.type_name());
  Json out = Json::array();
  for (const Json& item : list) {
    const std::string at = fmt::format("{} message {}", where, out.size() + 1);
    check<DataError>(item.is_object(), "{}: must be an object, got {}", at, item.type_name());
    const bool shared = item.contains("from");
    std::string role = text_field(item, shared ? "from" : "role", at);
    if (shared && role == "human") role = "user";
    if (shared && role == "gpt") role = "assistant";
    if (shared || shipped) {
      out.push_back({{"role", role}, {"content", text_field(item, shared ? "value" : "content", at)}});
    } else {
      out.push_back(item);
      out.back()["role"] = role;
    }
  }
  return out;
}

}  // namespace retort::data
