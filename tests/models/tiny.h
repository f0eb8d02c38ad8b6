// Small models for the tests of this room.
#pragma once

#include "models/decoder.h"
#include "models/weight_map.h"

namespace retort::testing {

models::DecoderSpec tiny_llama();  // 2 layers, 4 heads on 2 kv heads, untied
models::DecoderSpec tiny_gpt2();
models::DecoderSpec tiny_bitnet();  // tied, squared ReLU
// One of every family, small, with the choices of its defaults; Phi-3 with longrope and BitNet with SiLU as
// well.
std::vector<models::DecoderSpec> tiny_families();
std::vector<models::DecoderSpec> tiny_gguf_families();  // those that a GGUF can say

// Weights N(0, 0.08), norms and biases moved off 1 and 0, so that a mistake shows.
std::unique_ptr<models::Decoder> random_model(const models::DecoderSpec& spec, uint64_t seed = 1);
at::Tensor random_tokens(int64_t batch, int64_t tokens, int64_t vocabulary, uint64_t seed = 2);

at::Tensor logits(models::Model& model, const models::TokenBlock& block);  // [B, T, V] f32
// Mean next-token cross-entropy.
at::Tensor next_token_loss(models::Model& model, const at::Tensor& tokens_BT);
// The tokens and `count` more, each the first of the largest logits.
std::vector<int64_t> continue_greedily(models::Decoder& model, std::vector<int64_t> tokens, int64_t count);

}  // namespace retort::testing
