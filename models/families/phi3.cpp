// Phi-3: Llama with q|k|v and gate|up fused in files, an optional window, and longrope scaling (the 128k
// models). llama.cpp reads the window and does not apply it (docs/models.md).
#include <cmath>

#include "core/error.h"
#include "models/families/llama_form.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "phi3";
  s.context = 4096;
  s.tie_embeddings = false;
  return s;
}

void check_spec(const DecoderSpec& s) {
  check_choices(s, defaults(), {"window"}, {"longrope"});
  check<ConfigError>(s.heads * s.head_dim == s.width,
                     "model.heads * model.head_dim must equal model.width in family phi3, got {} * {} and {}",
                     s.heads, s.head_dim, s.width);
}

// HF and the client compute with f32 factors; config.json spells some of them in f64.
void round_factors(kernels::RopeScaling& r) {
  for (std::vector<double>* factors : {&r.short_factor, &r.long_factor})
    for (double& factor : *factors) factor = meant_decimal(static_cast<float>(factor));
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  config.must_be("hidden_act", "silu");
  DecoderSpec s = defaults();
  read_hf_form(config, s);
  s.window = config.integer("sliding_window", 0);
  read_hf_rope(config, s);
  round_factors(s.rope_scaling);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = write_hf_form(s, "Phi3ForCausalLM", "phi3");
  config.erase("head_dim");  // width / heads, always
  config["hidden_act"] = "silu";
  config["sliding_window"] = s.window > 0 ? Json(s.window) : Json();
  config["pad_token_id"] = nullptr;  // absent it would be 32000, which a smaller vocabulary has not
  write_hf_rope(s, config);
  return config;
}

std::vector<double> gguf_factors(const GgufKeys& keys, const char* name, int64_t count) {
  const at::Tensor values = keys.file().values(name);
  check<DataError>(values.dim() == 1 && values.numel() == count, "{}: {} must hold {} factors",
                   keys.file().path().string(), name, count);
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(meant_decimal(values[i].item<float>()));
  return out;
}

void read_gguf_longrope(const GgufKeys& keys, DecoderSpec& s) {
  kernels::RopeScaling& r = s.rope_scaling;
  r.kind = "longrope";
  r.original_context = keys.integer("rope.scaling.original_context_length");
  check<DataError>(r.original_context > 1, "{}: rope.scaling.original_context_length must be > 1, got {}",
                   keys.file().path().string(), r.original_context);
  r.factor = static_cast<double>(s.context) / static_cast<double>(r.original_context);
  r.short_factor = gguf_factors(keys, "rope_factors_short.weight", s.head_dim / 2);
  r.long_factor = gguf_factors(keys, "rope_factors_long.weight", s.head_dim / 2);
  const double amplitude = keys.real("rope.scaling.attn_factor", 1.0);
  if (std::abs(amplitude - kernels::rope_amplitude(r)) > 1e-6) r.attention_factor = amplitude;
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  const GgufKeys keys(file, "phi3");
  DecoderSpec s = defaults();
  read_gguf_form(keys, s, "longrope");
  s.window = keys.integer("attention.sliding_window", 0);
  if (keys.has_tensor("rope_factors_long.weight")) read_gguf_longrope(keys, s);
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  const kernels::RopeScaling& r = s.rope_scaling;
  formats::GgufMetadata metadata = write_gguf_form(s, "phi3");
  metadata.emplace_back("phi3.attention.sliding_window", static_cast<uint32_t>(s.window));
  if (r.kind != "longrope") return metadata;
  metadata.emplace_back("phi3.rope.scaling.type", std::string("longrope"));
  metadata.emplace_back("phi3.rope.scaling.original_context_length",
                        static_cast<uint32_t>(r.original_context));
  metadata.emplace_back("phi3.rope.scaling.attn_factor", static_cast<float>(kernels::rope_amplitude(r)));
  return metadata;
}

std::vector<std::pair<std::string, at::Tensor>> gguf_constants(const DecoderSpec& s) {
  const kernels::RopeScaling& r = s.rope_scaling;
  if (r.kind != "longrope") return {};
  return {{"rope_factors_long.weight", at::tensor(r.long_factor, at::kFloat)},
          {"rope_factors_short.weight", at::tensor(r.short_factor, at::kFloat)}};
}

}  // namespace

Family phi3_family() {
  Family f;
  f.name = "phi3";
  f.defaults = defaults();
  f.check = check_spec;
  f.hf_model_types = {"phi3"};
  f.hf_prefix = "model.";
  f.hf_buffers = {".rotary_emb.inv_freq"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return hf_form_tensors(s, Projections::kFused); };
  f.gguf_architecture = "phi3";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) {
    return gguf_form_tensors(s, Projections::kFused, Rotation::kHalves);
  };
  f.gguf_constants = gguf_constants;
  return f;
}

}  // namespace retort::models
