#include "models/families/rows.h"

namespace retort::models {

const Registry<Family>& families() {
  static const Registry<Family> table(
      "model.family", {gpt2_family(), llama_family(), phi3_family(), qwen2_family(), qwen3_family(),
                       gemma3_family(), bitnet_family(), spacebyte_family(), stlm_family()});
  return table;
}

}  // namespace retort::models
