// A DecoderSpec as JSON, as checkpoints keep it: every field by its recipe name, choices as words.
//   {"family": "llama", "vocabulary": 256, ..., "norm": "rms", ..., "rope_scaling": {"kind": "none", ...}}
//   and of a byte-patch model {..., "patch": {"width": 64, ..., "parallel": false}}
// Reading throws DataError naming source and key for missing and unknown keys, wrong types and unknown words;
// sub_norms may be missing, as in older checkpoints, which have none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/json.h"
#include "models/decoder.h"

namespace retort::models {

formats::Json to_json(const DecoderSpec& spec);
DecoderSpec from_json(const formats::Json& json, const std::string& source);  // not validated

// A choice and its word: NormKind rms | layer | rms_unit_offset, FfnKind swiglu | gelu | geglu | relu2glu,
// PositionKind rope | learned.
template <class Choice>
std::vector<std::string> choice_words();
template <class Choice>
std::string to_word(Choice choice);
template <class Choice>
Choice from_word(std::string_view word);  // ConfigError listing the words

}  // namespace retort::models
