#include "models/family.h"

#include <fmt/ranges.h>

#include "core/error.h"
#include "models/spec_json.h"

namespace retort::models {

void check_choices(const DecoderSpec& spec, const DecoderSpec& own, const std::set<std::string>& free,
                   const std::set<std::string>& scalings) {
  const formats::Json given = to_json(spec), needed = to_json(own);
  for (const char* key : {"norm", "ffn", "positions", "rope_local_theta", "window", "global_every",
                          "query_scalar", "attention_bias", "qkv_bias", "qk_norm", "sub_norms", "post_norms",
                          "ffn_bias", "scale_embeddings", "logit_softcap"})
    check<ConfigError>(free.contains(key) || given[key] == needed[key], "model.family {} has {} {}, got {}",
                       spec.family, key, needed[key].dump(), given[key].dump());
  const std::string& kind = spec.rope_scaling.kind;
  check<ConfigError>(kind == "none" || scalings.contains(kind),
                     "model.family {} has rope_scaling none{}{}, got {}", spec.family,
                     scalings.empty() ? "" : ", ", fmt::join(scalings, ", "), kind);
}

std::unique_ptr<Model> make_model(const DecoderSpec& spec, at::Device device) {
  const Family& family = families().at(spec.family);
  return family.make ? family.make(spec, device) : std::make_unique<Decoder>(spec, device);
}

}  // namespace retort::models
