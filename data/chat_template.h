// How a conversation is written as text, and which of it a model learns: what the assistant says, and the
// mark that ends its turn. The marks are those that the models' own templates print; a template is a row.
//
//   text = begin, then for each message: before[role], content, stop[role], after[role]
//
// chatml (Qwen, SmolLM2), llama3, phi3, gemma (no system role), and alpaca: headings without special tokens,
// for any tokenizer. Pure functions. Throws ConfigError for an unknown template, DataError for a role it
// lacks.
#pragma once

#include <string>
#include <vector>

#include "core/registry.h"

namespace retort::data {

// A run of text; `learned` is false where it is only read.
struct Span {
  std::string text;
  bool learned = true;
};

struct Message {
  std::string role, content;  // system, user or assistant
};

struct Turn {
  std::string role, before, stop, after;
};

struct ChatTemplate {
  std::string name, begin;
  std::vector<Turn> turns;
  std::vector<std::string> special;  // marks that want to be one token each
};
const Registry<ChatTemplate>& chat_templates();

// Neighbouring spans that are read, or learned, are one. `where` names the conversation in errors.
std::vector<Span> render(const ChatTemplate& form, const std::vector<Message>& messages,
                         const std::string& where);

}  // namespace retort::data
