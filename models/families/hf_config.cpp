#include "models/families/hf_config.h"

#include "core/error.h"

namespace retort::models {

using formats::Json;

bool HfConfig::has(std::string_view key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

std::string HfConfig::text(std::string_view key, std::string_view absent) const {
  return has(key) ? formats::json_text(object_, key, source_) : std::string(absent);
}

bool HfConfig::flag(std::string_view key, bool absent) const {
  if (!has(key)) return absent;
  const Json& value = *object_.find(key);
  check<DataError>(value.is_boolean(), "{}: {} must be true or false, got {}", source_, key, value.dump());
  return value.get<bool>();
}

HfConfig HfConfig::object(std::string_view key) const {
  check<DataError>(has(key) && object_.find(key)->is_object(), "{}: {} must be an object", source_, key);
  return {*object_.find(key), fmt::format("{}: {}", source_, key)};
}

void HfConfig::must_be(std::string_view key, bool value) const {
  check<DataError>(flag(key, value) == value, "{}: {}: {} is not supported", source_, key, !value);
}

void read_hf_rope(const HfConfig& config, DecoderSpec& spec) {
  const bool modern = config.has("rope_parameters");
  const HfConfig five = modern ? config.object("rope_parameters") : config;
  spec.rope_theta = five.real("rope_theta", config.real("rope_theta", 10000.0));
  spec.rope_scaling = {};
  if (!modern && !config.has("rope_scaling")) return;
  const HfConfig scaling = modern ? five : config.object("rope_scaling");
  const std::string kind = scaling.text("rope_type", scaling.text("type", "default"));
  if (kind == "default") return;
  check<DataError>(kind == "linear" || kind == "llama3",
                   "{}: rope_type must be default, linear or llama3, got \"{}\"", scaling.source(), kind);
  kernels::RopeScaling& r = spec.rope_scaling;
  r.kind = kind;
  r.factor = scaling.real("factor");
  if (kind == "linear") return;
  r.low_freq_factor = scaling.real("low_freq_factor");
  r.high_freq_factor = scaling.real("high_freq_factor");
  r.original_context = scaling.integer("original_max_position_embeddings");
}

void write_hf_rope(const DecoderSpec& spec, Json& config) {
  const kernels::RopeScaling& r = spec.rope_scaling;
  Json scaling = {{"rope_type", r.kind == "none" ? "default" : r.kind}};
  if (r.kind != "none") scaling["factor"] = r.factor;
  if (r.kind == "llama3") {
    scaling["low_freq_factor"] = r.low_freq_factor;
    scaling["high_freq_factor"] = r.high_freq_factor;
    scaling["original_max_position_embeddings"] = r.original_context;
  }
  config["rope_theta"] = spec.rope_theta;
  config["rope_scaling"] = r.kind == "none" ? Json() : scaling;
  scaling["rope_theta"] = spec.rope_theta;
  config["rope_parameters"] = std::move(scaling);
}

}  // namespace retort::models
