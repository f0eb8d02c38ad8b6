// One conversation rendered for somebody to look at: `retort data render`. The text is transformers', the ids are
// those of the model's tokenizer for that text, and the spans, in characters, are what training would learn.
// Throws ConfigError, DataError, IoError.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/section.h"
#include "data/templates/chat.h"

namespace retort::data {

struct RenderOptions {
  std::string source = {};  // a shipped name, a .jinja file, or a model: its folder or GGUF
  std::string name = {};    // of the template, where there are several; empty: as transformers chooses
  formats::Json messages = {}, tools = {};        // tools: null for none
  std::optional<std::string> bos = {}, eos = {};  // instead of the model's
  std::string date = {};                          // empty: today
  bool generation_prompt = false;
  bool continue_message = false;  // nothing is learned then
  void describe(Section& s);
};

struct RenderedChat {
  std::string text;
  std::optional<std::vector<int32_t>> ids;  // where the model has a tokenizer that Retort reads
  std::vector<std::pair<int64_t, int64_t>> spans;
};

RenderedChat render_chat(const RenderOptions& options);
// {"text", "ids", "spans"}; ids are null where there are none.
formats::Json to_json(const RenderedChat& chat);

}  // namespace retort::data
