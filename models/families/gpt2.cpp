// GPT-2 and GPT-3: layer norm, learned positions, GELU, biases everywhere. Both file formats fuse q, k and v;
// HF stores the four matrices of a layer transposed (its Conv1D).
#include "core/error.h"
#include "models/families/gguf_keys.h"
#include "models/families/hf_config.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "gpt2";
  s.context = 1024;
  s.norm = NormKind::kLayer;
  s.ffn = FfnKind::kGelu;
  s.positions = PositionKind::kLearned;
  s.attention_bias = s.ffn_bias = true;
  s.ffn_width = 4 * s.width;
  return s;
}

void check_spec(const DecoderSpec& s) {
  check_choices(s, defaults(), {}, {});
  check<ConfigError>(s.kv_heads == s.heads,
                     "model.kv_heads must equal model.heads in family gpt2, got {} and {}", s.kv_heads,
                     s.heads);
  check<ConfigError>(s.heads * s.head_dim == s.width,
                     "model.heads * model.head_dim must equal model.width in family gpt2, got {} * {} and {}",
                     s.heads, s.head_dim, s.width);
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  const std::string activation = config.text("activation_function", "gelu_new");
  check<DataError>(activation == "gelu_new" || activation == "gelu_pytorch_tanh",
                   "{}: activation_function must be gelu_new, got {}", source, activation);
  config.must_be("scale_attn_weights", true);
  config.must_be("scale_attn_by_inverse_layer_idx", false);
  config.must_be("add_cross_attention", false);
  DecoderSpec s = defaults();
  s.vocabulary = config.integer("vocab_size");
  s.context = config.integer("n_positions");
  s.layers = config.integer("n_layer");
  s.width = config.integer("n_embd");
  s.heads = s.kv_heads = config.integer("n_head");
  check<DataError>(s.heads > 0, "{}: n_head must be > 0, got {}", source, s.heads);
  s.head_dim = s.width / s.heads;
  s.ffn_width =
      config.integer("n_inner", 4 * std::min(s.width, int64_t{1} << 20));  // a hostile width fails later
  s.norm_eps = config.real("layer_norm_epsilon", 1e-5);
  s.tie_embeddings = config.flag("tie_word_embeddings", true);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", s.vocabulary},
          {"n_positions", s.context},
          {"n_layer", s.layers},
          {"n_embd", s.width},
          {"n_head", s.heads},
          {"n_inner", s.ffn_width},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", s.norm_eps},
          {"embd_pdrop", 0.0},
          {"attn_pdrop", 0.0},
          {"resid_pdrop", 0.0},
          {"tie_word_embeddings", s.tie_embeddings}};
}

struct Module {
  const char *ours, *hf, *gguf;
  bool matrix;
  int64_t row_begin = 0, rows = 0;
};

std::vector<ForeignTensor> tensors(const DecoderSpec& s, bool gguf) {
  const int64_t D = s.width;
  const Module modules[] = {{"attn_norm", "ln_1", "attn_norm", false},
                            {"attn.q", "attn.c_attn", "attn_qkv", true, 0, D},
                            {"attn.k", "attn.c_attn", "attn_qkv", true, D, D},
                            {"attn.v", "attn.c_attn", "attn_qkv", true, 2 * D, D},
                            {"attn.o", "attn.c_proj", "attn_output", true},
                            {"ffn_norm", "ln_2", "ffn_norm", false},
                            {"ffn.up", "mlp.c_fc", "ffn_up", true},
                            {"ffn.down", "mlp.c_proj", "ffn_down", true}};
  std::vector<ForeignTensor> out;
  out.push_back({"embed.weight", gguf ? "token_embd.weight" : "transformer.wte.weight"});
  out.push_back({"positions.weight", gguf ? "position_embd.weight" : "transformer.wpe.weight"});
  for (int64_t n = 0; n < s.layers; ++n)
    for (const std::string part : {".weight", ".bias"})
      for (const Module& m : modules) {
        const std::string theirs = gguf ? fmt::format("blk.{}.{}{}", n, m.gguf, part)
                                        : fmt::format("transformer.h.{}.{}{}", n, m.hf, part);
        out.push_back({fmt::format("layers.{}.{}{}", n, m.ours, part), theirs,
                       !gguf && m.matrix && part == ".weight", 0, m.row_begin, m.rows});
      }
  for (const std::string part : {".weight", ".bias"})
    out.push_back({"final_norm" + part, (gguf ? "output_norm" : "transformer.ln_f") + part});
  out.push_back({"lm_head.weight", gguf ? "output.weight" : "lm_head.weight"});
  return out;
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  const GgufKeys keys(file, "gpt2");
  DecoderSpec s = defaults();
  read_gguf_sizes(keys, s);
  s.attention_bias = s.ffn_bias = true;
  s.norm_eps = keys.real("attention.layer_norm_epsilon");
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  formats::GgufMetadata metadata = write_gguf_sizes(s, "gpt2");
  metadata.emplace_back("gpt2.attention.layer_norm_epsilon", static_cast<float>(s.norm_eps));
  return metadata;
}

}  // namespace

Family gpt2_family() {
  Family f;
  f.name = "gpt2";
  f.defaults = defaults();
  f.check = check_spec;
  f.hf_model_types = {"gpt2"};
  f.hf_prefix = "transformer.";
  f.hf_buffers = {".attn.bias", ".attn.masked_bias"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return tensors(s, false); };
  f.gguf_architecture = "gpt2";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) { return tensors(s, true); };
  f.gguf_constants = [](const DecoderSpec&) { return std::vector<std::pair<std::string, at::Tensor>>(); };
  return f;
}

}  // namespace retort::models
