// Llama 1 to 3 and all that share the architecture (TinyLlama, MobiLlama, MobileLLM, SmolLM2): RMS norm,
// rotary positions, grouped queries, SwiGLU. GGUF keeps q and k in interleaved rotary order and llama3
// scaling as divisors.
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "models/families/llama_form.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

constexpr const char* kMobileLlm = "mobilellm";

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "llama";
  s.tie_embeddings = false;
  return s;
}

// MobileLLM ties its head by a key of its own, and says tie_word_embeddings false beside it.
void read_mobilellm(const HfConfig& config, DecoderSpec& s) {
  config.must_be("layer_sharing", false);
  s.tie_embeddings = config.flag("share_embedding", false) || s.tie_embeddings;
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  config.must_be("hidden_act", "silu");
  DecoderSpec s = defaults();
  s.norm_eps = 1e-6;
  read_hf_form(config, s);
  if (config.text("model_type", "llama") == kMobileLlm) read_mobilellm(config, s);
  const std::vector<std::string> classes = config.texts("architectures");
  if (classes == std::vector<std::string>{"MobiLlamaForCausalLM"})
    s.kv_heads = s.heads;  // its code does not read num_key_value_heads, which says 4
  s.attention_bias = config.flag("attention_bias", false);
  s.ffn_bias = config.flag("mlp_bias", false);
  read_hf_rope(config, s);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = write_hf_form(s, "LlamaForCausalLM", "llama");
  config["hidden_act"] = "silu";
  config["attention_bias"] = s.attention_bias;
  config["mlp_bias"] = s.ffn_bias;
  write_hf_rope(s, config);
  return config;
}

// rope_freqs.weight [K/2]: what the client divides each frequency by.
at::Tensor rope_divisors(const DecoderSpec& s) {
  return (kernels::rope_frequencies(s.head_dim, s.rope_theta, {}) /
          kernels::rope_frequencies(s.head_dim, s.rope_theta, s.rope_scaling))
      .to(at::kFloat);
}

// The original context for which the llama3 rule gives these divisors; 0 when none was found. A blended
// frequency tells it; without one, the longest context whose wavelengths fall on the right sides does.
int64_t original_context(const DecoderSpec& s, const at::Tensor& divisors) {
  const kernels::RopeScaling& r = s.rope_scaling;
  const at::Tensor frequencies = kernels::rope_frequencies(s.head_dim, s.rope_theta, {});
  double longest = 0;  // the shortest divided wavelength bounds it
  for (int64_t i = divisors.numel() - 1; i >= 0; --i) {
    const double divisor = divisors[i].item<double>();
    const double wavelength = 2.0 * std::numbers::pi / frequencies[i].item<double>();
    if (divisor >= r.factor * (1 - 1e-6)) {
      longest = wavelength * r.low_freq_factor;
    } else if (divisor > 1 + 1e-6) {
      const double smooth = (1.0 / divisor - 1.0 / r.factor) / (1.0 - 1.0 / r.factor);
      return std::llround(wavelength *
                          (smooth * (r.high_freq_factor - r.low_freq_factor) + r.low_freq_factor));
    }
  }
  return static_cast<int64_t>(std::floor(longest));
}

void read_gguf_divisors(const GgufKeys& keys, DecoderSpec& s) {
  const std::string where = keys.file().path().string();
  if (!keys.has_tensor("rope_freqs.weight")) return;
  const at::Tensor divisors = keys.file().values("rope_freqs.weight");
  check<DataError>(divisors.dim() == 1 && divisors.numel() == s.head_dim / 2 && s.rope_scaling.kind == "none",
                   "{}: rope_freqs.weight must hold {} divisors and no other scaling", where, s.head_dim / 2);
  s.rope_scaling.kind = "llama3";
  s.rope_scaling.factor = divisors.max().item<double>();
  s.rope_scaling.original_context = original_context(s, divisors);
  check<DataError>(s.rope_scaling.original_context > 0 && at::allclose(rope_divisors(s), divisors, 1e-4, 0.0),
                   "{}: rope_freqs.weight does not follow the llama3 rule (low 1, high 4)", where);
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  const GgufKeys keys(file, "llama");
  DecoderSpec s = defaults();
  read_gguf_form(keys, s);
  read_gguf_divisors(keys, s);
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  const kernels::RopeScaling& r = s.rope_scaling;
  check<ConfigError>(r.kind != "llama3" || (r.low_freq_factor == 1.0 && r.high_freq_factor == 4.0),
                     "[gguf] llama3 scaling needs low_freq_factor 1 and high_freq_factor 4, got {} and {}",
                     r.low_freq_factor, r.high_freq_factor);
  return write_gguf_form(s, "llama");
}

std::vector<std::pair<std::string, at::Tensor>> gguf_constants(const DecoderSpec& s) {
  if (s.rope_scaling.kind != "llama3") return {};
  return {{"rope_freqs.weight", rope_divisors(s)}};
}

}  // namespace

Family llama_family() {
  Family f;
  f.name = "llama";
  f.defaults = defaults();
  f.check = [](const DecoderSpec& s) {
    check_choices(s, defaults(), {"attention_bias", "ffn_bias"}, {"linear", "llama3"});
  };
  f.hf_model_types = {"llama", kMobileLlm};
  f.hf_prefix = "model.";
  f.hf_buffers = {".rotary_emb.inv_freq"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return hf_form_tensors(s, Projections::kApart); };
  f.gguf_architecture = "llama";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) {
    return gguf_form_tensors(s, Projections::kApart, Rotation::kInterleaved);
  };
  f.gguf_constants = gguf_constants;
  return f;
}

}  // namespace retort::models
