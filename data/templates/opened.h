// A chat template by its address, with what belongs to it: a name of shipped_templates(), a .jinja file, or a model,
// by its folder or GGUF. Throws ConfigError for an unknown name, IoError, DataError.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/templates/chat_template.h"
#include "data/tokenizers/tokenizer.h"

namespace retort::data {

struct OpenedTemplate {
  ChatTemplate form;
  std::string text;
  bool shipped = false;
  formats::Json special = formats::Json::object();  // tokens by name
  std::vector<int32_t> ends;                        // ids that end a text or a turn, by the model's files
  std::unique_ptr<Tokenizer> tokenizer;             // the model's; null where there is none that Retort reads
  std::string digest() const;  // of what decides how a conversation is written; the tokenizer's ids do not
};

// `name` of the template where a model has several; empty: as transformers chooses, which asks for `tools`.
OpenedTemplate open_template(const std::string& address, const std::string& name = "", bool tools = false);

}  // namespace retort::data
