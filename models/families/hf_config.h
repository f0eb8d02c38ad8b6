// Reading a Hugging Face config.json, where null and absent mean the default. DataError names file and key.
#pragma once

#include <string>
#include <string_view>

#include "formats/json.h"
#include "formats/said.h"
#include "models/decoder.h"

namespace retort::models {

class HfConfig {
 public:
  HfConfig(const formats::Json& object, std::string source) : object_(object), source_(std::move(source)) {}

  bool has(std::string_view key) const;  // present and not null
  int64_t integer(std::string_view key) const { return formats::json_integer(object_, key, source_); }
  int64_t integer(std::string_view key, int64_t absent) const { return has(key) ? integer(key) : absent; }
  double real(std::string_view key) const { return formats::json_real(object_, key, source_); }
  double real(std::string_view key, double absent) const { return has(key) ? real(key) : absent; }
  std::string text(std::string_view key, std::string_view absent) const;
  bool flag(std::string_view key, bool absent) const;
  HfConfig object(std::string_view key) const;
  std::vector<double> reals(std::string_view key) const { return formats::json_reals(object_, key, source_); }
  std::vector<std::string> texts(std::string_view key) const;  // empty when absent
  void must_be(std::string_view key, bool value) const;        // absent, or this
  void must_be(std::string_view key, const char* value) const;
  void must_lack(std::string_view key) const;  // absent or null
  formats::Said said(const std::string& key) const { return formats::said_in(object_, key, source_); }
  const std::string& source() const { return source_; }

 private:
  const formats::Json& object_;
  std::string source_;
};

// rope_theta (absent: the spec's) and scaling from either spelling: rope_theta and rope_scaling (transformers
// 4), which counts where it says something, or rope_parameters (5).
void read_hf_rope(const HfConfig& config, DecoderSpec& spec);
// Both spellings, for old and new readers.
void write_hf_rope(const DecoderSpec& spec, formats::Json& config);

}  // namespace retort::models
