// Llama 1 to 3 and all that share the architecture (TinyLlama, MobileLLM, SmolLM2): RMS norm, rotary
// positions, grouped queries, SwiGLU. GGUF keeps q and k in interleaved rotary order and llama3 scaling as
// divisors.
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "models/families/gguf_keys.h"
#include "models/families/hf_config.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "llama";
  s.tie_embeddings = false;
  return s;
}

void check_spec(const DecoderSpec& s) {
  check<ConfigError>(
      s.norm == NormKind::kRms && s.ffn == FfnKind::kSwiglu && s.positions == PositionKind::kRope,
      "model.family llama has norm rms, ffn swiglu and positions rope");
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  const std::string activation = config.text("hidden_act", "silu");
  check<DataError>(activation == "silu", "{}: hidden_act must be silu, got {}", source, activation);
  DecoderSpec s = defaults();
  s.vocabulary = config.integer("vocab_size");
  s.context = config.integer("max_position_embeddings", 2048);
  s.layers = config.integer("num_hidden_layers");
  s.width = config.integer("hidden_size");
  s.heads = config.integer("num_attention_heads");
  check<DataError>(s.heads > 0, "{}: num_attention_heads must be > 0, got {}", source, s.heads);
  s.kv_heads = config.integer("num_key_value_heads", s.heads);
  s.head_dim = config.integer("head_dim", s.width / s.heads);
  s.ffn_width = config.integer("intermediate_size");
  s.norm_eps = config.real("rms_norm_eps", 1e-6);
  s.attention_bias = config.flag("attention_bias", false);
  s.ffn_bias = config.flag("mlp_bias", false);
  s.tie_embeddings = config.flag("tie_word_embeddings", false);
  read_hf_rope(config, s);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"model_type", "llama"},
                 {"vocab_size", s.vocabulary},
                 {"max_position_embeddings", s.context},
                 {"num_hidden_layers", s.layers},
                 {"hidden_size", s.width},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head_dim},
                 {"intermediate_size", s.ffn_width},
                 {"hidden_act", "silu"},
                 {"rms_norm_eps", s.norm_eps},
                 {"attention_bias", s.attention_bias},
                 {"mlp_bias", s.ffn_bias},
                 {"tie_word_embeddings", s.tie_embeddings}};
  write_hf_rope(s, config);
  return config;
}

// One module of a layer: ours, and its names in HF and GGUF.
struct Module {
  const char *ours, *hf, *gguf;
  bool bias;
  int64_t rope_heads = 0;
};

std::vector<Module> layer_modules(const DecoderSpec& s) {
  return {{"attn_norm", "input_layernorm", "attn_norm", false},
          {"attn.q", "self_attn.q_proj", "attn_q", s.attention_bias, s.heads},
          {"attn.k", "self_attn.k_proj", "attn_k", s.attention_bias, s.kv_heads},
          {"attn.v", "self_attn.v_proj", "attn_v", s.attention_bias},
          {"attn.o", "self_attn.o_proj", "attn_output", s.attention_bias},
          {"ffn_norm", "post_attention_layernorm", "ffn_norm", false},
          {"ffn.gate", "mlp.gate_proj", "ffn_gate", s.ffn_bias},
          {"ffn.up", "mlp.up_proj", "ffn_up", s.ffn_bias},
          {"ffn.down", "mlp.down_proj", "ffn_down", s.ffn_bias}};
}

std::vector<ForeignTensor> tensors(const DecoderSpec& s, bool gguf) {
  std::vector<ForeignTensor> out;
  out.push_back({"embed.weight", gguf ? "token_embd.weight" : "model.embed_tokens.weight"});
  for (int64_t n = 0; n < s.layers; ++n)
    for (const Module& m : layer_modules(s))
      for (const char* part : {".weight", ".bias"}) {
        if (part == std::string_view(".bias") && !m.bias) continue;
        const std::string theirs = gguf ? fmt::format("blk.{}.{}{}", n, m.gguf, part)
                                        : fmt::format("model.layers.{}.{}{}", n, m.hf, part);
        out.push_back(
            {fmt::format("layers.{}.{}{}", n, m.ours, part), theirs, false, gguf ? m.rope_heads : 0});
      }
  out.push_back({"final_norm.weight", gguf ? "output_norm.weight" : "model.norm.weight"});
  out.push_back({"lm_head.weight", gguf ? "output.weight" : "lm_head.weight"});
  return out;
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

void read_gguf_rope(const GgufKeys& keys, DecoderSpec& s) {
  const std::string where = keys.file().path().string();
  s.rope_theta = keys.real("rope.freq_base", 10000.0);
  const int64_t rotary = keys.integer("rope.dimension_count", s.head_dim);
  check<DataError>(rotary == s.head_dim && s.head_dim > 0 && s.head_dim % 2 == 0,
                   "{}: rope.dimension_count must equal an even head dimension {}, got {}", where, s.head_dim,
                   rotary);
  const std::string kind = keys.text("rope.scaling.type", "none");
  check<DataError>(kind == "none" || kind == "linear", "{}: rope.scaling.type must be none or linear, got {}",
                   where, kind);
  s.rope_scaling = {};
  if (kind == "linear") {
    s.rope_scaling.kind = kind;
    s.rope_scaling.factor = keys.real("rope.scaling.factor");
  }
  if (!keys.has_tensor("rope_freqs.weight")) return;
  const at::Tensor divisors = keys.file().values("rope_freqs.weight");
  check<DataError>(divisors.dim() == 1 && divisors.numel() == s.head_dim / 2 && kind == "none",
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
  read_gguf_sizes(keys, s);
  s.norm_eps = keys.real("attention.layer_norm_rms_epsilon");
  read_gguf_rope(keys, s);
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  const kernels::RopeScaling& r = s.rope_scaling;
  check<ConfigError>(r.kind != "llama3" || (r.low_freq_factor == 1.0 && r.high_freq_factor == 4.0),
                     "[gguf] llama3 scaling needs low_freq_factor 1 and high_freq_factor 4, got {} and {}",
                     r.low_freq_factor, r.high_freq_factor);
  formats::GgufMetadata metadata = write_gguf_sizes(s, "llama");
  metadata.emplace_back("llama.attention.layer_norm_rms_epsilon", static_cast<float>(s.norm_eps));
  metadata.emplace_back("llama.rope.dimension_count", static_cast<uint32_t>(s.head_dim));
  metadata.emplace_back("llama.rope.freq_base", static_cast<float>(s.rope_theta));
  if (r.kind == "linear") {
    metadata.emplace_back("llama.rope.scaling.type", std::string("linear"));
    metadata.emplace_back("llama.rope.scaling.factor", static_cast<float>(r.factor));
  }
  return metadata;
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
  f.check = check_spec;
  f.hf_model_types = {"llama"};
  f.hf_prefix = "model.";
  f.hf_buffers = {".rotary_emb.inv_freq"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return tensors(s, false); };
  f.gguf_architecture = "llama";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) { return tensors(s, true); };
  f.gguf_constants = gguf_constants;
  return f;
}

}  // namespace retort::models
