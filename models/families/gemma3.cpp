// Gemma 3, text only: norms that multiply by 1 + w before and after attention and FFN, an RMS norm of each q
// and k head, GeGLU, embeddings scaled by sqrt(width), and windows in all but every global_every-th layer,
// with a rotary base of their own. GGUF keeps the norms with the 1 added (f32: a small w loses its last
// bits).
#include <cmath>

#include "core/error.h"
#include "models/families/llama_form.h"
#include "models/families/rows.h"

namespace retort::models {
namespace {

using formats::Json;

constexpr int64_t kLargestLayers =
    62;  // of the 27B model, for which llama.cpp scales scores by width / heads

DecoderSpec defaults() {
  DecoderSpec s;
  s.family = "gemma3";
  s.context = 32768;
  s.norm = NormKind::kRmsUnitOffset;
  s.norm_eps = 1e-6;
  s.ffn = FfnKind::kGeglu;
  s.rope_theta = 1e6;
  s.rope_local_theta = 1e4;
  s.window = 512;
  s.global_every = 6;
  s.qk_norm = s.post_norms = s.scale_embeddings = true;
  return s;
}

void check_spec(const DecoderSpec& s) {
  check_choices(s, defaults(), {"window", "global_every", "rope_local_theta", "query_scalar"}, {"linear"});
  check<ConfigError>(s.window > 0 && s.rope_local_theta > 0,
                     "model.family gemma3 has a window and a rope_local_theta (global_every 1: no layer uses "
                     "them), got {} and {}",
                     s.window, s.rope_local_theta);
}

double query_scalar(const DecoderSpec& s) {
  return s.query_scalar > 0 ? s.query_scalar : static_cast<double>(s.head_dim);
}

// The period of layer_types, in which the last layer of each is global; 0: none is.
int64_t period_of(const std::vector<std::string>& types, int64_t period, const std::string& source) {
  const auto is_global = [&](size_t layer) {
    check<DataError>(types[layer] == "full_attention" || types[layer] == "sliding_attention",
                     "{}: layer_types must be full_attention or sliding_attention, got {}", source,
                     types[layer]);
    return types[layer] == "full_attention";
  };
  const auto fits = [&](size_t p) {
    for (size_t n = 0; n < types.size(); ++n)
      if (is_global(n) != (p > 0 && (n + 1) % p == 0)) return false;
    return true;
  };
  if (fits(static_cast<size_t>(period))) return period;
  size_t first = 0;
  while (first < types.size() && !is_global(first)) ++first;
  const size_t found = first == types.size() ? 0 : first + 1;
  check<DataError>(fits(found), "{}: layer_types must be global at every P-th layer and sliding elsewhere",
                   source);
  return static_cast<int64_t>(found);
}

void read_windows(const HfConfig& config, DecoderSpec& s) {
  s.window = config.integer("sliding_window", 4096);
  const int64_t period =
      config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 6));
  const std::vector<std::string> types = config.texts("layer_types");
  check<DataError>(period >= 0 && (types.empty() || std::ssize(types) == s.layers),
                   "{}: sliding_window_pattern must be >= 0 and layer_types name {} layers, got {} and {}",
                   config.source(), s.layers, period, types.size());
  s.global_every = types.empty() ? period : period_of(types, period, config.source());
}

// rope_parameters has a part for each kind of layer; rope_scaling goes over the part of the global ones.
void read_rope(const HfConfig& config, const Json& json, DecoderSpec& s) {
  Json global = {{"rope_parameters", Json::object()}};
  s.rope_local_theta = config.real("rope_local_base_freq", 1e4);
  if (config.has("rope_parameters")) {
    const HfConfig parameters = config.object("rope_parameters"),
                   local = parameters.object("sliding_attention");
    local.must_be("rope_type", "default");
    s.rope_local_theta = local.real("rope_theta", s.rope_local_theta);
    parameters.object("full_attention");  // is there
    global["rope_parameters"] = json.at("rope_parameters").at("full_attention");
  }
  if (config.has("rope_scaling")) {
    config.object("rope_scaling");
    global["rope_parameters"].update(json.at("rope_scaling"));
  }
  if (config.has("rope_theta")) global["rope_theta"] = json.at("rope_theta");
  read_hf_rope({global, config.source()}, s);
}

DecoderSpec spec_from_hf(const Json& json, const std::string& source) {
  const HfConfig config(json, source);
  config.must_be("hidden_activation", "gelu_pytorch_tanh");
  config.must_be("attention_bias", false);
  config.must_be("use_bidirectional_attention", false);
  config.must_lack("attn_logit_softcapping");
  config.must_lack("final_logit_softcapping");
  DecoderSpec s = defaults();
  s.context = 131072;
  read_hf_form(config, s);
  s.head_dim = config.integer("head_dim", 256);
  const double scalar = config.real("query_pre_attn_scalar", 256);
  s.query_scalar = scalar == static_cast<double>(s.head_dim) ? 0.0 : scalar;
  read_windows(config, s);
  read_rope(config, json, s);
  return s;
}

Json hf_config(const DecoderSpec& s) {
  Json config = write_hf_form(s, "Gemma3ForCausalLM", "gemma3_text");
  const double scalar = query_scalar(s);
  const bool whole = scalar == std::floor(scalar);
  Json types = Json::array();
  for (int64_t n = 0; n < s.layers; ++n)
    types.push_back(s.windowed(n) ? "sliding_attention" : "full_attention");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["attention_bias"] = false;
  config["query_pre_attn_scalar"] = whole ? Json(static_cast<int64_t>(scalar)) : Json(scalar);
  config["attn_logit_softcapping"] = nullptr;
  config["final_logit_softcapping"] = nullptr;
  config["sliding_window"] = s.window;
  config["sliding_window_pattern"] = s.global_every;
  config["layer_types"] = std::move(types);
  write_hf_rope(s, config);
  config["rope_local_base_freq"] = s.rope_local_theta;
  const Json global = config["rope_parameters"];
  config["rope_parameters"] = {
      {"full_attention", global},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", s.rope_local_theta}}}};
  return config;
}

double client_query_scalar(const DecoderSpec& s) {
  return static_cast<double>(s.layers == kLargestLayers ? s.width / s.heads : s.head_dim);
}

DecoderSpec spec_from_gguf(const formats::GgufFile& file) {
  const GgufKeys keys(file, "gemma3");
  DecoderSpec s = defaults();
  read_gguf_form(keys, s);
  s.window = keys.integer("attention.sliding_window", 0);
  s.global_every = s.window > 0 ? keys.integer("attention.sliding_window_pattern", 6) : 1;
  if (s.window == 0) s.window = s.context;
  s.rope_local_theta = keys.real("rope.freq_base_swa", 1e4);
  const double scalar = client_query_scalar(s);
  s.query_scalar = scalar == static_cast<double>(s.head_dim) ? 0.0 : scalar;
  return s;
}

formats::GgufMetadata gguf_metadata(const DecoderSpec& s) {
  check<ConfigError>(
      query_scalar(s) == client_query_scalar(s),
      "[gguf] architecture gemma3 has no key for query_scalar: with {} layers it is {}, got {}", s.layers,
      client_query_scalar(s), query_scalar(s));
  formats::GgufMetadata metadata = write_gguf_form(s, "gemma3");
  metadata.emplace_back("gemma3.attention.sliding_window", static_cast<uint32_t>(s.window));
  metadata.emplace_back("gemma3.attention.sliding_window_pattern", static_cast<uint32_t>(s.global_every));
  metadata.emplace_back("gemma3.rope.freq_base_swa", static_cast<float>(s.rope_local_theta));
  return metadata;
}

}  // namespace

Family gemma3_family() {
  Family f;
  f.name = "gemma3";
  f.defaults = defaults();
  f.check = check_spec;
  f.hf_model_types = {"gemma3_text"};
  f.hf_prefix = "model.";
  f.hf_buffers = {".rotary_emb.inv_freq"};
  f.spec_from_hf = spec_from_hf;
  f.hf_config = hf_config;
  f.hf_tensors = [](const DecoderSpec& s) { return hf_form_tensors(s, Projections::kApart); };
  f.gguf_architecture = "gemma3";
  f.spec_from_gguf = spec_from_gguf;
  f.gguf_metadata = gguf_metadata;
  f.gguf_tensors = [](const DecoderSpec& s) {
    return gguf_form_tensors(s, Projections::kApart, Rotation::kHalves);
  };
  f.gguf_constants = [](const DecoderSpec&) { return std::vector<std::pair<std::string, at::Tensor>>(); };
  return f;
}

}  // namespace retort::models
