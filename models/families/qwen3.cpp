// Qwen3 (dense): Llama with an RMS norm of each q and k head, whose dimension is free of the width.
#include "core/error.h"
#include "models/families/llama_form.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "qwen3";
  s.context = 32768;
  s.norm_eps = 1e-6;
  s.qk_norm = true;
  return s;
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  config.must_be("hidden_act", "silu");
  must_attend_fully(config);
  config.must_be("attention_bias", false);
  DecoderSpec s = defaults();
  s.tie_embeddings = false;
  read_hf_form(config, s);
  s.head_dim = config.integer("head_dim", 128);  // transformers' default: not width / heads
  read_hf_rope(config, s);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = write_hf_form(s, "Qwen3ForCausalLM", "qwen3");
  config["hidden_act"] = "silu";
  config["use_sliding_window"] = false;
  config["attention_bias"] = false;
  write_hf_rope(s, config);
  return config;
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  DecoderSpec s = defaults();
  read_gguf_form(GgufKeys(file, "qwen3"), s);
  return s;
}

}  // namespace

Family qwen3_family() {
  Family f;
  f.name = "qwen3";
  f.defaults = defaults();
  f.check = [](const DecoderSpec& s) { check_choices(s, defaults(), {}, {"linear"}); };
  f.hf_model_types = {"qwen3"};
  f.hf_prefix = "model.";
  f.hf_buffers = {".rotary_emb.inv_freq"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return hf_form_tensors(s, Projections::kApart); };
  f.gguf_architecture = "qwen3";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = [](const DecoderSpec& s) { return write_gguf_form(s, "qwen3"); };
  f.gguf_tensors = [](const DecoderSpec& s) {
    return gguf_form_tensors(s, Projections::kApart, Rotation::kHalves);
  };
  f.gguf_constants = [](const DecoderSpec&) { return std::vector<std::pair<std::string, at::Tensor>>(); };
  return f;
}

}  // namespace retort::models
