// JSON in and out. The only home of the JSON library: other rooms use this alias and these functions.
// parse_json refuses duplicate keys and nesting deeper than 64; errors name the source, line and column.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace retort::formats {

using Json = nlohmann::ordered_json;

Json parse_json(std::string_view text, std::string_view source);
Json read_json(const Path& path, uint64_t limit = uint64_t{1} << 30);

// Typed access to an object's member; DataError naming source and key when it is missing or of another type.
int64_t json_integer(const Json& object, std::string_view key, std::string_view source);
double json_real(const Json& object, std::string_view key, std::string_view source);
std::vector<double> json_reals(const Json& object, std::string_view key, std::string_view source);
std::string json_text(const Json& object, std::string_view key, std::string_view source);

}  // namespace retort::formats
