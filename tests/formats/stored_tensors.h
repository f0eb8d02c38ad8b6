// Tensors in memory as a container.
#pragma once

#include "formats/safetensors.h"
#include "formats/stored_tensors.h"

namespace retort::testing {

using Tensors = std::map<std::string, at::Tensor>;

inline formats::StoredTensors stored(const Tensors& tensors) {
  formats::StoredTensors out{"folder", {}, [tensors](const std::string& name) { return tensors.at(name); }};
  for (const auto& [name, tensor] : tensors) out.shapes[name] = tensor.sizes().vec();
  return out;
}

// What is stored for module "m", as a writer gives it.
inline Tensors module_m(const formats::NamedTensors& parts) {
  Tensors out;
  for (const auto& [part, tensor] : parts) out["m." + part] = tensor.contiguous();
  return out;
}

}  // namespace retort::testing
