// One fact that a model's files say in several places: which of them counts. The places are listed in the
// order in which transformers takes them, and the first that says something counts. What differs from it is
// passed over where transformers does so too, else refused with both places named. Pure; any thread.
#pragma once

#include <initializer_list>
#include <string>

#include "formats/json.h"

namespace retort::formats {

// The lists:
//   rotary scaling      rope_scaling, rope_parameters (config.json)              models/families/hf_config.cpp
//   rotary base         of the scaling that counts, then rope_theta; a base of the other one must agree
//   ends of a text      generation_config.json, config.json                      models/generation_facts.cpp
//   weights             model.safetensors, then the index of its shards          models/hf_folder.cpp
//   a tied head         tie_word_embeddings, and the tensors must agree          models/foreign.cpp
//   special tokens      special_tokens_map.json (without added_tokens_decoder), tokenizer_config.json
//   added tokens        tokenizer.json, added_tokens_decoder, added_tokens.json: they must agree
//   chat templates      chat_template.jinja, tokenizer_config.json               data/templates/store.cpp
// The type of the weights (dtype, torch_dtype) is in none: the tensors have theirs.
struct Said {
  std::string where;            // "config.json: rope_theta"
  const Json* value = nullptr;  // nullptr, null, {} and [] say nothing
  bool something() const;
};

// The first that says something; without one, the last of them.
Said first_said(std::initializer_list<Said> places);

// The place of a member of an object.
Said said_in(const Json& object, const std::string& key, const std::string& source);

}  // namespace retort::formats
