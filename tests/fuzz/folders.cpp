#include "tests/fuzz/folders.h"

#include "formats/safetensors.h"
#include "tests/fuzz/reader.h"

namespace retort::fuzz {
namespace {

using formats::NamedTensors;

struct Matrix {
  const char* name;
  int64_t out, in;
};
// A Llama layer of width 32 (one block of most formats) with 8 tokens.
constexpr Matrix kMatrices[] = {{"self_attn.q_proj", 32, 32}, {"self_attn.k_proj", 16, 32},
                                {"self_attn.v_proj", 16, 32}, {"self_attn.o_proj", 32, 32},
                                {"mlp.gate_proj", 32, 32},    {"mlp.up_proj", 32, 32},
                                {"mlp.down_proj", 32, 32}};

std::string layer(const std::string& name) { return "model.layers.0." + name; }

NamedTensors vectors() {
  return {{"model.embed_tokens.weight", at::ones({8, 32})},
          {layer("input_layernorm.weight"), at::ones({32})},
          {layer("post_attention_layernorm.weight"), at::ones({32})},
          {"model.norm.weight", at::ones({32})}};
}

NamedTensors plain() {
  NamedTensors out;
  for (const Matrix& m : kMatrices) out.emplace_back(layer(m.name) + ".weight", at::ones({m.out, m.in}));
  return out;
}

void write(const Path& path, const NamedTensors& tensors) {
  formats::write_safetensors(local_files(), path, tensors);
}

NamedTensors joined(NamedTensors a, const NamedTensors& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

Path plain_weights(Path directory) {
  write(directory / "model.safetensors", joined(vectors(), plain()));
  return directory;
}

Path packed_weights(Path directory) {
  NamedTensors packed = vectors();
  for (const Matrix& m : kMatrices) {
    packed.emplace_back(layer(m.name) + ".weight_packed", at::ones({m.out, m.in / 8}, at::kInt));  // 4 bits
    packed.emplace_back(layer(m.name) + ".weight_scale", at::ones({m.out, 1}));
    packed.emplace_back(layer(m.name) + ".weight_shape", at::tensor({m.out, m.in}, at::kLong));
  }
  write(directory / "model.safetensors", packed);
  return directory;
}

Path split_weights(Path directory) {
  write(directory / "a.safetensors", vectors());
  write(directory / "b.safetensors", plain());
  put(directory / "config.json", R"({"model_type": "llama", "vocab_size": 8, "max_position_embeddings": 8,
    "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "hidden_act": "silu"})");
  return directory;
}

}  // namespace retort::fuzz
