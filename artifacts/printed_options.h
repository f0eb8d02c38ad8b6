// The YAML that manifests kept options as before they kept JSON: what recipes/print_section.h writes, and
// nothing else of YAML.
#pragma once

#include <string>
#include <string_view>

#include "formats/json.h"

namespace retort::artifacts {

// The text as JSON, for formats::section_from_json. DataError naming source and line. Any thread. Two spaces
// a level, one key a line; a value is true or false, a number, a word, or text in quotes with the escapes \"
// \\ \n \xNN:
//
//   key: value        a section:  key:             a list of them:  key:
//   key: [a, "b c"]                 key: value                        - key: value
//   key: []                                                             key: value
formats::Json parse_printed(std::string_view text, const std::string& source);

}  // namespace retort::artifacts
