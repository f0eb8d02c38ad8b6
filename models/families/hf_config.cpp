#include "models/families/hf_config.h"

#include "core/error.h"

namespace retort::models {

using formats::Json;
using formats::Said;

namespace {

// The value there, which must be an object; an empty one where there is none.
HfConfig object_at(const Said& said) {
  static const Json nothing = Json::object();
  if (!said.something()) return {nothing, said.where};
  check<DataError>(said.value->is_object(), "{} must be an object", said.where);
  return {*said.value, said.where};
}

// What transformers derives when the file has no factor.
double context_ratio(const DecoderSpec& spec, int64_t original) {
  return static_cast<double>(spec.context) / static_cast<double>(original);
}

void read_longrope(const HfConfig& config, const HfConfig& scaling, DecoderSpec& spec) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  kernels::RopeScaling& r = spec.rope_scaling;
  r.kind = "longrope";
  r.original_context = config.has(kOriginal) ? config.integer(kOriginal) : scaling.integer(kOriginal);
  r.factor = scaling.real("factor", context_ratio(spec, r.original_context));
  r.attention_factor = scaling.real("attention_factor", 0.0);
  r.short_factor = scaling.reals("short_factor");
  r.long_factor = scaling.reals("long_factor");
}

void write_longrope(const DecoderSpec& spec, Json& config) {
  const kernels::RopeScaling& r = spec.rope_scaling;
  const Json four = {{"type", "longrope"}, {"short_factor", r.short_factor}, {"long_factor", r.long_factor}};
  Json five = {{"rope_type", "longrope"},
               {"rope_theta", spec.rope_theta},
               {"factor", r.factor},
               {"original_max_position_embeddings", r.original_context},
               {"short_factor", r.short_factor},
               {"long_factor", r.long_factor}};
  if (r.attention_factor > 0) five["attention_factor"] = r.attention_factor;
  // transformers 4 takes these three keys only, and 5 lets them win: what they cannot say, 4 must refuse.
  const bool said = r.attention_factor == 0 && r.factor == context_ratio(spec, r.original_context);
  config["original_max_position_embeddings"] = r.original_context;
  config["rope_theta"] = spec.rope_theta;
  config["rope_scaling"] = said ? four : five;
  config["rope_parameters"] = std::move(five);
}

}  // namespace

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

std::vector<std::string> HfConfig::texts(std::string_view key) const {
  std::vector<std::string> out;
  if (!has(key)) return out;
  const Json& list = *object_.find(key);
  check<DataError>(list.is_array(), "{}: {} must be a list, got {}", source_, key, list.dump());
  for (const Json& item : list) {
    check<DataError>(item.is_string(), "{}: {} must hold texts, got {}", source_, key, item.dump());
    out.push_back(item.get<std::string>());
  }
  return out;
}

HfConfig HfConfig::object(std::string_view key) const {
  check<DataError>(has(key) && object_.find(key)->is_object(), "{}: {} must be an object", source_, key);
  return {*object_.find(key), fmt::format("{}: {}", source_, key)};
}

void HfConfig::must_be(std::string_view key, bool value) const {
  check<DataError>(flag(key, value) == value, "{}: {}: {} is not supported", source_, key, !value);
}

void HfConfig::must_be(std::string_view key, const char* value) const {
  const std::string found = text(key, value);
  check<DataError>(found == value, "{}: {} must be {}, got {}", source_, key, value, found);
}

void HfConfig::must_lack(std::string_view key) const {
  check<DataError>(!has(key), "{}: {} is not supported", source_, key);
}

void read_hf_rope(const HfConfig& config, DecoderSpec& spec) {
  const Said four = config.said("rope_scaling"), five = config.said("rope_parameters");
  const HfConfig scaling = object_at(formats::first_said({four, five})),
                 passed_over = object_at(four.something() ? five : four);
  // The scaling's own, then config.json's. A value that only the scaling has which is passed over would be
  // lost.
  const auto real = [&](const char* key, double absent) {
    const double value = scaling.real(key, config.real(key, absent));
    check<DataError>(passed_over.real(key, value) == value,
                     "{}: {} is {}, and {} counts, with {}: which is meant?", passed_over.source(), key,
                     passed_over.real(key, value), scaling.source(), value);
    return value;
  };
  spec.rope_theta = real("rope_theta", spec.rope_theta);
  const double rotated = real("partial_rotary_factor", 1.0);
  check<DataError>(rotated == 1.0, "{}: partial_rotary_factor must be 1, got {}", config.source(), rotated);
  spec.rope_scaling = {};
  const std::string kind = scaling.text("rope_type", scaling.text("type", "default"));
  if (kind == "default") return;
  if (kind == "longrope" || kind == "su" || scaling.has("short_factor"))  // Phi-3's earlier names too
    return read_longrope(config, scaling, spec);
  check<DataError>(kind == "linear" || kind == "llama3",
                   "{}: rope_type must be default, linear, llama3 or longrope, got \"{}\"", scaling.source(),
                   kind);
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
  if (r.kind == "longrope") return write_longrope(spec, config);
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
