// Checkpoints of llama2.c (karpathy), read only: a second, independent form of the same weights. Grammar:
//   i32 dim, hidden_dim, layers, heads, kv_heads, vocabulary (negative: own classifier), seq_len
//   f32 embedding [V, dim]; attention norms [L, dim]; q, k, v, o, each [L, out, in]; ffn norms [L, dim];
//   w1 gate, w2 down, w3 up, each [L, out, in]; final norm [dim]; 2 rotary tables [seq_len, head_dim / 2];
//   classifier [V, dim] when it is not shared
// q and k rows are in interleaved rotary order. Throws DataError unless the sizes add up to the file's.
#pragma once

#include <memory>

#include "core/file.h"
#include "models/decoder.h"

namespace retort::models {

std::unique_ptr<Decoder> load_llama2c(const Path& path);
DecoderSpec llama2c_spec(const Path& path);  // what its header says

}  // namespace retort::models
