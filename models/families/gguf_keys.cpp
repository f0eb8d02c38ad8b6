#include "models/families/gguf_keys.h"

#include <cstdlib>

#include "core/error.h"

namespace retort::models {

std::string GgufKeys::name(std::string_view key) const { return fmt::format("{}.{}", architecture_, key); }

int64_t GgufKeys::integer(std::string_view key, std::optional<int64_t> absent) const {
  return file_.integer(name(key), absent);
}

double meant_decimal(float value) { return std::strtod(fmt::format("{}", value).c_str(), nullptr); }

double GgufKeys::real(std::string_view key, std::optional<double> absent) const {
  return meant_decimal(static_cast<float>(file_.real(name(key), absent)));
}

std::string GgufKeys::text(std::string_view key, std::string_view absent) const {
  return file_.text(name(key), std::string(absent));
}

void read_gguf_sizes(const GgufKeys& keys, DecoderSpec& spec) {
  const std::string where = keys.file().path().string();
  spec.context = keys.integer("context_length");
  spec.width = keys.integer("embedding_length");
  spec.layers = keys.integer("block_count");
  spec.ffn_width = keys.integer("feed_forward_length");
  spec.heads = keys.integer("attention.head_count");
  check<DataError>(spec.heads > 0, "{}: attention.head_count must be > 0, got {}", where, spec.heads);
  spec.kv_heads = keys.integer("attention.head_count_kv", spec.heads);
  spec.head_dim = keys.integer("attention.key_length", spec.width / spec.heads);
  const int64_t value_dim = keys.integer("attention.value_length", spec.head_dim);
  check<DataError>(value_dim == spec.head_dim, "{}: attention.value_length must equal key_length {}, got {}",
                   where, spec.head_dim, value_dim);
  const formats::GgufTensorInfo* embed = keys.file().find_tensor("token_embd.weight");
  check<DataError>(embed && embed->shape.size() == 2, "{}: lacks a matrix token_embd.weight", where);
  spec.vocabulary = embed->shape[0];  // the tensor, not the key: some files pad their embedding
  spec.tie_embeddings = !keys.has_tensor("output.weight");
  spec.attention_bias = keys.has_tensor("blk.0.attn_output.bias");
  spec.ffn_bias = keys.has_tensor("blk.0.ffn_up.bias");
}

formats::GgufMetadata write_gguf_sizes(const DecoderSpec& spec, const std::string& architecture) {
  const auto key = [&](const char* name) { return architecture + "." + name; };
  const auto size = [](int64_t value) { return static_cast<uint32_t>(value); };
  return {{"general.architecture", architecture},
          {key("vocab_size"), size(spec.vocabulary)},
          {key("context_length"), size(spec.context)},
          {key("embedding_length"), size(spec.width)},
          {key("block_count"), size(spec.layers)},
          {key("feed_forward_length"), size(spec.ffn_width)},
          {key("attention.head_count"), size(spec.heads)},
          {key("attention.head_count_kv"), size(spec.kv_heads)},
          {key("attention.key_length"), size(spec.head_dim)},
          {key("attention.value_length"), size(spec.head_dim)}};
}

}  // namespace retort::models
