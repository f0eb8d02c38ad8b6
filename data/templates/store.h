// Where models keep their chat templates, and which one is meant. In this order, as transformers:
//   folder  chat_template.jinja ("default") and additional_chat_templates/NAME.jinja; if any of them is there,
//           all of tokenizer_config.json's is left aside; else its chat_template: a text ("default"), or a list
//           of {"name", "template"}. Special tokens: tokenizer_config.json, then special_tokens_map.json
//   GGUF    tokenizer.chat_template ("default"), and tokenizer.chat_template.NAME of each name in
//           tokenizer.chat_templates, characters but letters and digits as _
//   .jinja  the file ("default"); special tokens of the folder that it lies in
// Throws DataError naming the file, IoError.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/file.h"
#include "formats/json.h"

namespace retort::formats {
class GgufFile;
}

namespace retort::data {

using NamedTemplates = std::vector<std::pair<std::string, std::string>>;  // name, text
// Those of a folder alone; none is no error.
NamedTemplates folder_templates(const Path& folder);
NamedTemplates gguf_templates(const formats::GgufFile& file);

struct StoredTemplates {
  std::string source;  // the file or folder
  NamedTemplates templates;
  formats::Json special = formats::Json::object();  // "bos_token": "<s>", ...: those that are set
  std::vector<int32_t> ends;                        // ids that end a text or a turn, by the model's files
};

StoredTemplates read_templates(const Path& address);
Path folder_of(const Path& file);  // "." for a bare name

// The one of that name; without a name "tool_use" where there are tools, else "default". DataError that lists
// the names.
const std::string& choose_template(const StoredTemplates& stored, std::string_view name, bool tools);

}  // namespace retort::data
