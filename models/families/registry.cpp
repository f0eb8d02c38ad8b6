#include "models/families/rows.h"

namespace retort::models {

const Registry<Family>& families() {
  static const Registry<Family> table("model.family", {gpt2_family(), llama_family(), phi3_family(),
                                                       qwen2_family(), qwen3_family(), gemma3_family()});
  return table;
}

std::unique_ptr<Model> make_model(const DecoderSpec& spec, at::Device device) {
  const Family& family = families().at(spec.family);
  return family.make ? family.make(spec, device) : std::make_unique<Decoder>(spec, device);
}

}  // namespace retort::models
