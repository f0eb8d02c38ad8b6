// A conversation as a template gets it: what transformers' apply_chat_template passes on. `messages`, `tools` and
// `documents` are always defined, the last two as None where there are none; the model's special tokens are
// there by name, and the caller's own variables win over all of them.
#pragma once

#include "data/templates/chat_template.h"

namespace retort::data {

struct Chat {
  formats::Json messages = formats::Json::array();  // objects with a role
  formats::Json tools, documents;                   // null: none
  formats::Json special = formats::Json::object();  // "bos_token": "<s>", ...
  formats::Json variables = formats::Json::object();
  bool generation_prompt = false;
  std::optional<std::tm> now;
};

// DataError for an empty conversation, and as ChatTemplate::render.
Rendered render(const ChatTemplate& form, const Chat& chat);
// The last message's text is left open: what the template would write after it is cut off.
std::string render_open(const ChatTemplate& form, const Chat& chat);

// "2026-02-03", also with " 04:05:06" or "T04:05:06" after it. ConfigError for another text.
std::tm parse_date(std::string_view text);
std::tm date_or_today(std::string_view text);  // of "" the local day

}  // namespace retort::data
