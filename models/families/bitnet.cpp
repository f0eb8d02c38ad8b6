// BitNet b1.58 (Ma et al. 2025, arXiv 2504.12285): Llama with an RMS norm before attention's and the
// feed-forward network's last product (Wang et al. 2023, arXiv 2210.06423) and squared ReLU as the gate; SiLU
// in the first models (arXiv 2402.17764). Ternary weights and int8 activations are a grid's matter
// (quantize/), not the architecture's. llama.cpp's bitnet computes SiLU up to 2026.10 whatever the file
// says, and takes the embedding for the head, so GGUF is written for such models only (docs/models.md).
#include "core/error.h"
#include "models/families/llama_form.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "bitnet";
  s.context = 4096;
  s.ffn = FfnKind::kRelu2glu;
  s.rope_theta = 500000.0;
  s.sub_norms = true;
  return s;
}

void check_spec(const DecoderSpec& s) {
  check_choices(s, defaults(), {"ffn"}, {"linear"});
  check<ConfigError>(s.ffn == FfnKind::kRelu2glu || s.ffn == FfnKind::kSwiglu,
                     "model.ffn must be relu2glu or swiglu in family bitnet");
  check<ConfigError>(
      s.heads * s.head_dim == s.width,
      "model.heads * model.head_dim must equal model.width in family bitnet, got {} * {} and {}", s.heads,
      s.head_dim, s.width);
}

FfnKind ffn_of(const std::string& activation, const std::string& source, const char* key) {
  check<DataError>(activation == "relu2" || activation == "silu", "{}: {} must be relu2 or silu, got {}",
                   source, key, activation);
  return activation == "relu2" ? FfnKind::kRelu2glu : FfnKind::kSwiglu;
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  config.must_be("attention_bias", false);
  DecoderSpec s = defaults();
  s.context = 2048;
  s.tie_embeddings = false;
  read_hf_form(config, s);
  s.ffn = ffn_of(config.text("hidden_act", "relu2"), source, "hidden_act");
  read_hf_rope(config, s);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = write_hf_form(s, "BitNetForCausalLM", "bitnet");
  config.erase("head_dim");  // width / heads, always
  config["hidden_act"] = s.ffn == FfnKind::kRelu2glu ? "relu2" : "silu";
  config["attention_bias"] = false;
  write_hf_rope(s, config);
  return config;
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  const GgufKeys keys(file, "bitnet");
  DecoderSpec s = defaults();
  read_gguf_form(keys, s);
  s.ffn = ffn_of(keys.text("hidden_activation", "silu"), file.path().string(), "bitnet.hidden_activation");
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  check<ConfigError>(s.ffn == FfnKind::kSwiglu,
                     "[gguf] llama.cpp's architecture bitnet computes SiLU: model.ffn must be swiglu, got "
                     "relu2glu (squared ReLU), which an HF folder can say");
  check<ConfigError>(s.tie_embeddings,
                     "[gguf] llama.cpp's architecture bitnet has no head of its own: model.tie_embeddings "
                     "must be true");
  return write_gguf_form(s, "bitnet");
}

}  // namespace

Family bitnet_family() {
  Family f;
  f.name = "bitnet";
  f.defaults = defaults();
  f.check = check_spec;
  f.hf_model_types = {"bitnet"};
  f.hf_prefix = "model.";
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return hf_form_tensors(s, Projections::kApart); };
  f.gguf_architecture = "bitnet";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) {
    return gguf_form_tensors(s, Projections::kApart, Rotation::kHalves);
  };
  f.gguf_constants = [](const DecoderSpec&) { return std::vector<std::pair<std::string, at::Tensor>>(); };
  return f;
}

}  // namespace retort::models
