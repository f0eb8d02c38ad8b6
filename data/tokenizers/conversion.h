// Text to ids and back as text, for programs that ask for it: `retort tokenizer`. A plain answer is ids with spaces
// between, or the text; with JSON it is of many at once, ["text", ...] to [[ids], ...] and back. What is no UTF-8
// becomes U+FFFD there, for JSON has no other way. ConfigError and DataError name what is no id and no text; `source`
// is the input's name in messages.
#pragma once

#include <string>

#include "data/tokenizers/tokenizer.h"

namespace retort::data {

std::string encode_as_text(const Tokenizer& tokenizer, const std::string& text);
std::string decode_from_text(const Tokenizer& tokenizer, const std::string& ids);
std::string encode_json(const Tokenizer& tokenizer, const std::string& texts, const std::string& source);
std::string decode_json(const Tokenizer& tokenizer, const std::string& lists, const std::string& source);

}  // namespace retort::data
