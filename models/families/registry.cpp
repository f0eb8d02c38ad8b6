#include "models/families/rows.h"

namespace retort::models {

const Registry<Family>& families() {
  static const Registry<Family> table("model.family", {gpt2_family(), llama_family()});
  return table;
}

}  // namespace retort::models
