#include "models/families/llama_form.h"

#include "core/error.h"

namespace retort::models {
namespace {

using formats::Json;

// One module of a layer: ours, and its names in HF and GGUF.
struct Module {
  const char *ours, *hf, *gguf;
  bool norm = false, bias = false;
  int64_t rope_heads = 0;
  int64_t row_begin = 0, rows = 0;
};

std::vector<Module> projections_apart(const DecoderSpec& s) {
  const bool qkv_bias = s.attention_bias || s.qkv_bias;
  return {{"attn.q", "self_attn.q_proj", "attn_q", false, qkv_bias, s.heads},
          {"attn.k", "self_attn.k_proj", "attn_k", false, qkv_bias, s.kv_heads},
          {"attn.v", "self_attn.v_proj", "attn_v", false, qkv_bias},
          {"ffn.gate", "mlp.gate_proj", "ffn_gate", false, s.ffn_bias},
          {"ffn.up", "mlp.up_proj", "ffn_up", false, s.ffn_bias}};
}

std::vector<Module> projections_fused(const DecoderSpec& s) {
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim, F = s.ffn_width;
  return {{"attn.q", "self_attn.qkv_proj", "attn_qkv", false, false, 0, 0, q},
          {"attn.k", "self_attn.qkv_proj", "attn_qkv", false, false, 0, q, kv},
          {"attn.v", "self_attn.qkv_proj", "attn_qkv", false, false, 0, q + kv, kv},
          {"ffn.gate", "mlp.gate_up_proj", "ffn_up", false, false, 0, 0, F},
          {"ffn.up", "mlp.gate_up_proj", "ffn_up", false, false, 0, F, F}};
}

std::vector<Module> layer_modules(const DecoderSpec& s, Projections projections) {
  std::vector<Module> out = projections == Projections::kFused ? projections_fused(s) : projections_apart(s);
  out.push_back({"attn.o", "self_attn.o_proj", "attn_output", false, s.attention_bias});
  out.push_back({"ffn.down", "mlp.down_proj", "ffn_down", false, s.ffn_bias});
  out.push_back({"attn_norm", "input_layernorm", "attn_norm", true});
  if (s.qk_norm) {
    out.push_back({"attn.q_norm", "self_attn.q_norm", "attn_q_norm", true});
    out.push_back({"attn.k_norm", "self_attn.k_norm", "attn_k_norm", true});
  }
  if (s.sub_norms) {
    out.push_back({"attn.sub_norm", "self_attn.attn_sub_norm", "attn_sub_norm", true});
    out.push_back({"ffn.sub_norm", "mlp.ffn_sub_norm", "ffn_sub_norm", true});
  }
  if (s.post_norms) {
    out.push_back({"attn_post_norm", "post_attention_layernorm", "post_attention_norm", true});
    out.push_back({"ffn_norm", "pre_feedforward_layernorm", "ffn_norm", true});
    out.push_back({"ffn_post_norm", "post_feedforward_layernorm", "post_ffw_norm", true});
  } else {
    out.push_back({"ffn_norm", "post_attention_layernorm", "ffn_norm", true});
  }
  return out;
}

}  // namespace

void read_hf_form(const HfConfig& config, DecoderSpec& s) {
  s.vocabulary = config.integer("vocab_size");
  s.context = config.integer("max_position_embeddings", s.context);
  s.layers = config.integer("num_hidden_layers");
  s.width = config.integer("hidden_size");
  s.heads = config.integer("num_attention_heads");
  check<DataError>(s.heads > 0, "{}: num_attention_heads must be > 0, got {}", config.source(), s.heads);
  s.kv_heads = config.integer("num_key_value_heads", s.heads);
  s.head_dim = config.integer("head_dim", s.width / s.heads);
  s.ffn_width = config.integer("intermediate_size");
  s.norm_eps = config.real("rms_norm_eps", s.norm_eps);
  s.tie_embeddings = config.flag("tie_word_embeddings", s.tie_embeddings);
}

Json write_hf_form(const DecoderSpec& s, const char* architecture, const char* model_type) {
  return {{"architectures", {architecture}}, {"model_type", model_type},
          {"vocab_size", s.vocabulary},      {"max_position_embeddings", s.context},
          {"num_hidden_layers", s.layers},   {"hidden_size", s.width},
          {"num_attention_heads", s.heads},  {"num_key_value_heads", s.kv_heads},
          {"head_dim", s.head_dim},          {"intermediate_size", s.ffn_width},
          {"rms_norm_eps", s.norm_eps},      {"tie_word_embeddings", s.tie_embeddings}};
}

void must_attend_fully(const HfConfig& config) {
  config.must_be("use_sliding_window", false);
  for (const std::string& type : config.texts("layer_types"))
    check<DataError>(type == "full_attention", "{}: layer_types must be full_attention, got {}",
                     config.source(), type);
}

void read_gguf_form(const GgufKeys& keys, DecoderSpec& s, std::string_view other) {
  const std::string where = keys.file().path().string();
  read_gguf_sizes(keys, s);
  s.norm_eps = keys.real("attention.layer_norm_rms_epsilon");
  s.rope_theta = keys.real("rope.freq_base", 10000.0);
  const int64_t rotary = keys.integer("rope.dimension_count", s.head_dim);
  check<DataError>(rotary == s.head_dim && s.head_dim > 0 && s.head_dim % 2 == 0,
                   "{}: rope.dimension_count must equal an even head dimension {}, got {}", where, s.head_dim,
                   rotary);
  const std::string kind = keys.text("rope.scaling.type", "none");
  check<DataError>(kind == "none" || kind == "linear" || kind == other,
                   "{}: rope.scaling.type must be none or linear, got {}", where, kind);
  s.rope_scaling = {};
  if (kind != "linear") return;
  s.rope_scaling.kind = kind;
  s.rope_scaling.factor = keys.real("rope.scaling.factor");
}

formats::GgufMetadata write_gguf_form(const DecoderSpec& s, const std::string& architecture) {
  formats::GgufMetadata metadata = write_gguf_sizes(s, architecture);
  const auto add = [&](const char* key, formats::GgufValue value) {
    metadata.emplace_back(architecture + "." + key, std::move(value));
  };
  add("attention.layer_norm_rms_epsilon", static_cast<float>(s.norm_eps));
  add("rope.dimension_count", static_cast<uint32_t>(s.head_dim));
  add("rope.freq_base", static_cast<float>(s.rope_theta));
  if (s.rope_scaling.kind == "linear") {
    add("rope.scaling.type", std::string("linear"));
    add("rope.scaling.factor", static_cast<float>(s.rope_scaling.factor));
  }
  return metadata;
}

std::vector<ForeignTensor> hf_form_tensors(const DecoderSpec& s, Projections projections) {
  std::vector<ForeignTensor> out;
  out.push_back({"embed.weight", "model.embed_tokens.weight"});
  for (int64_t n = 0; n < s.layers; ++n)
    for (const Module& m : layer_modules(s, projections)) {
      const std::string ours = fmt::format("layers.{}.{}", n, m.ours),
                        theirs = fmt::format("model.layers.{}.{}", n, m.hf);
      out.push_back({ours + ".weight", theirs + ".weight", false, 0, m.row_begin, m.rows});
      if (m.bias) out.push_back({ours + ".bias", theirs + ".bias"});
    }
  out.push_back({"final_norm.weight", "model.norm.weight"});
  out.push_back({"lm_head.weight", "lm_head.weight"});
  return out;
}

std::vector<ForeignTensor> gguf_form_tensors(const DecoderSpec& s, Projections projections,
                                             Rotation rotation) {
  const double offset = s.norm == NormKind::kRmsUnitOffset ? 1.0 : 0.0;
  std::vector<ForeignTensor> out;
  out.push_back({"embed.weight", "token_embd.weight"});
  for (int64_t n = 0; n < s.layers; ++n)
    for (const Module& m : layer_modules(s, projections)) {
      const std::string ours = fmt::format("layers.{}.{}", n, m.ours),
                        theirs = fmt::format("blk.{}.{}", n, m.gguf);
      const int64_t rope_heads = rotation == Rotation::kInterleaved ? m.rope_heads : 0;
      out.push_back({ours + ".weight", theirs + ".weight", false, rope_heads, m.row_begin, m.rows,
                     m.norm ? offset : 0.0});
      if (m.bias) out.push_back({ours + ".bias", theirs + ".bias", false, rope_heads});
    }
  out.push_back({"final_norm.weight", "output_norm.weight", false, 0, 0, 0, offset});
  out.push_back({"lm_head.weight", "output.weight"});
  return out;
}

}  // namespace retort::models
