#include "artifacts/modelfile.h"

#include <fmt/format.h>

#include "data/tokenizers/utf8.h"

namespace retort::artifacts {
namespace {

constexpr std::string_view kBegin = "# Written by retort export, for Ollama: ";

// Ollama takes a text between quotes as it is, without escapes; one of several lines wants three.
std::string quoted(std::string_view text) {
  const bool lines = text.find('\n') != text.npos || text.starts_with('"');
  return fmt::format(fmt::runtime(lines ? "\"\"\"{}\"\"\"" : "\"{}\""), text);
}

bool is_utf8(std::string_view text) {
  std::string made(text);
  data::check_utf8(made, "replace", "");
  return made == text;
}

}  // namespace

Path modelfile_path(const Path& gguf) { return Path(gguf).replace_extension(".Modelfile"); }

std::string modelfile(const Path& gguf, const data::Tokenizer* tokenizer, const std::vector<int32_t>& ends) {
  const bool chats = tokenizer != nullptr && !tokenizer->chat_template().empty();
  std::string out = fmt::format(
      "{}ollama create NAME -f {}\n# {}\nFROM ./{}\n", kBegin, modelfile_path(gguf).filename().string(),
      chats ? "No TEMPLATE: Ollama goes by the chat template in the GGUF."
            : "No TEMPLATE: the model has no chat template, and prompts are passed as they are.",
      gguf.filename().string());
  if (tokenizer == nullptr) return out;
  for (const int32_t id : ends) {
    const std::string_view text = tokenizer->token_bytes(id);
    if (!text.empty() && is_utf8(text)) out += fmt::format("PARAMETER stop {}\n", quoted(text));
  }
  return out;
}

bool is_modelfile(std::string_view text) { return text.starts_with(kBegin); }

}  // namespace retort::artifacts
