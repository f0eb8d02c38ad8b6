#include "data/templates/shipped.h"

namespace retort::data {

const Registry<ShippedTemplate>& shipped_templates() {
  static const Registry<ShippedTemplate> table(
      "chat template",
      {{"alpaca", {}},
       {"chatml", {"<|im_start|>", "<|im_end|>"}},
       {"llama3", {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
       {"phi3", {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"}},
       {"gemma", {"<bos>", "<start_of_turn>", "<end_of_turn>"}}});
  return table;
}

std::string_view shipped_text(std::string_view name) {
  for (const auto& [file, text] : shipped_texts())
    if (file == name) return text;
  fail<InternalError>("[templates] no text of {} is embedded", name);
}

}  // namespace retort::data
