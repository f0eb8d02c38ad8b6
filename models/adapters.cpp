#include "models/adapters.h"

#include <ATen/core/grad_mode.h>

#include "models/family.h"

namespace retort::models {

DecoderSpec without_adapters(DecoderSpec spec) {
  spec.share_ffn = spec.share_output = false;
  spec.keep_first = spec.keep_last = spec.lora_rank = 0;
  spec.repeat = 1;
  return spec;
}

std::unique_ptr<Model> merge_adapters(const Model& model, WeightMap& map) {
  const at::NoGradGuard no_grad;
  const DecoderSpec spec = without_adapters(model.spec());
  const auto value = [&](const std::string& name) {
    const Parameter& p = model.parameters().at(name);
    return map.apply(p, p.master);
  };
  std::unique_ptr<Model> out = make_model(spec);
  for (Parameter& p : out->parameters().unique()) {
    p.master.copy_(value(p.name));
    const std::string module = p.name.substr(0, p.name.rfind('.'));
    if (p.role == Role::kMatrix && model.parameters().contains(module + ".lora_a.weight"))
      p.master.addmm_(value(module + ".lora_b.weight"), value(module + ".lora_a.weight"));
  }
  IdentityMap identity;
  bind_working(out->parameters(), identity, at::kFloat);
  return out;
}

}  // namespace retort::models
