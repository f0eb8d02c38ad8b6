// Reading and writing an architecture's GGUF keys: "<architecture>.<key>".
#pragma once

#include <string>
#include <string_view>

#include "formats/gguf.h"
#include "models/decoder.h"

namespace retort::models {

class GgufKeys {
 public:
  GgufKeys(const formats::GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)) {}

  int64_t integer(std::string_view key, std::optional<int64_t> absent = std::nullopt) const;
  double real(std::string_view key, std::optional<double> absent = std::nullopt) const;
  std::string text(std::string_view key, std::string_view absent) const;
  bool has_tensor(std::string_view name) const { return file_.find_tensor(name) != nullptr; }
  const formats::GgufFile& file() const { return file_; }

 private:
  std::string name(std::string_view key) const;
  const formats::GgufFile& file_;
  std::string architecture_;
};

// Files hold f32 of decimals such as 1e-5: the shortest decimal that rounds to `value`, the number that was
// meant.
double meant_decimal(float value);

// What every architecture has: context, width, layers, heads, head_dim, ffn_width, vocabulary, tied head.
void read_gguf_sizes(const GgufKeys& keys, DecoderSpec& spec);
formats::GgufMetadata write_gguf_sizes(const DecoderSpec& spec, const std::string& architecture);

}  // namespace retort::models
