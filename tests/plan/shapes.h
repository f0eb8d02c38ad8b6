// Published shapes, on at::kMeta: nothing is allocated.
#pragma once

#include "models/family.h"

namespace retort::plan {

inline models::DecoderSpec llama3(int64_t layers, int64_t width, int64_t heads, int64_t ffn_width) {
  return {.vocabulary = 128256,
          .context = 8192,
          .layers = layers,
          .width = width,
          .heads = heads,
          .kv_heads = 8,
          .head_dim = width / heads,
          .ffn_width = ffn_width,
          .rope_theta = 500000,
          .tie_embeddings = false};
}
inline models::DecoderSpec llama3_8b() { return llama3(32, 4096, 32, 14336); }
inline models::DecoderSpec llama3_70b() { return llama3(80, 8192, 64, 28672); }
inline models::DecoderSpec llama3_405b() { return llama3(126, 16384, 128, 53248); }

// GPT-2's form with all its biases, as GPT-3 and MPT have it.
inline models::DecoderSpec gpt(int64_t layers, int64_t width, int64_t heads, int64_t vocabulary,
                               int64_t context) {
  models::DecoderSpec spec = models::families().at("gpt2").defaults;
  spec.vocabulary = vocabulary;
  spec.context = context;
  spec.layers = layers;
  spec.width = width;
  spec.heads = spec.kv_heads = heads;
  spec.head_dim = width / heads;
  spec.ffn_width = 4 * width;
  spec.tie_embeddings = true;
  return spec;
}

inline std::unique_ptr<models::Model> shape(const models::DecoderSpec& spec) {
  return models::make_model(spec, at::kMeta);
}

}  // namespace retort::plan
