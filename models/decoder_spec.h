// The shape of a model: orthogonal choices, with the sizes. A published architecture is a translation to one
// (models/families/). A value; validate() before it sizes anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/rope.h"

namespace retort::models {

enum class NormKind { kRms, kLayer, kRmsUnitOffset };  // unit offset: times 1 + w, w starting at 0 (Gemma)
// gelu: up, gelu_tanh, down; relu2glu: squared ReLU in the place of swiglu's silu
enum class FfnKind { kSwiglu, kGelu, kGeglu, kRelu2glu };
enum class PositionKind { kRope, kLearned };

// The parts around the core of a byte-patch model (models/bytes/): layers over the bytes.
struct PatchSpec {
  int64_t width = 64;
  int64_t layers = 4;  // spacebyte: half before the core, half after it; stlm: of the head
  int64_t heads = 2;
  int64_t ffn_width = 192;
  int64_t window = 0;     // spacebyte: > 0: a byte sees this many
  int64_t longest = 0;    // stlm: bytes of a patch at most
  bool parallel = false;  // stlm: a patch's bytes do not know of each other

  bool operator==(const PatchSpec&) const = default;
};

struct DecoderSpec {
  std::string family = "llama";  // models/families/registry: whose names and defaults files use
  int64_t vocabulary = 256;
  int64_t tokens = 0;  // > 0: ids in use, from 0; the rows after them are padding and never take probability
  int64_t context = 2048;
  int64_t layers = 4;  // executed
  int64_t width = 128;
  int64_t heads = 4;
  int64_t kv_heads = 4;
  int64_t head_dim = 32;
  int64_t ffn_width = 352;
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  FfnKind ffn = FfnKind::kSwiglu;
  PositionKind positions = PositionKind::kRope;
  double rope_theta = 10000.0;
  kernels::RopeScaling rope_scaling = {};
  double rope_local_theta = 0.0;  // > 0: base of the layers with a window, which are not scaled
  int64_t window = 0;             // > 0: a query sees this many keys, its own included
  int64_t global_every = 0;       // > 0: every so many-th layer sees all keys (6: layers 5, 11, ...)
  double query_scalar = 0.0;      // scores are q.k / sqrt(query_scalar); 0: head_dim
  bool attention_bias = false;    // q, k, v and o
  bool qkv_bias = false;          // q, k and v
  bool qk_norm = false;           // an RMS norm of each head's q and k, before the rotation
  bool sub_norms = false;         // a norm before attention's and the FFN's last product (BitNet)
  bool post_norms = false;        // what attention and FFN add is normalised too
  bool ffn_bias = false;
  bool tie_embeddings = true;
  bool scale_embeddings = false;  // by sqrt(width), rounded to the embedding's working dtype
  double logit_softcap = 0.0;     // > 0: logits become softcap * tanh(logits / softcap)
  bool share_ffn = false;         // one FFN for the layers between keep_first and keep_last
  bool share_output = false;      // one attention output projection for them
  int64_t keep_first = 0;         // layers at the start that share neither, and at the end
  int64_t keep_last = 0;
  int64_t lora_rank = 0;                // > 0: each use of the shared FFN has adapters of its own
  int64_t repeat = 1;                   // each stored block runs this often in a row
  std::optional<PatchSpec> patch = {};  // of a byte-patch model, whose core all the above describes

  bool operator==(const DecoderSpec&) const = default;
  int64_t columns() const { return tokens > 0 ? tokens : vocabulary; }  // of the logits
  // `ids`: of a tokenizer, at most `vocabulary`.
  void set_tokens(int64_t ids);
  bool windowed(int64_t layer) const {
    return window > 0 && (global_every == 0 || (layer + 1) % global_every != 0);
  }
  // ConfigError naming the recipe's key (model.heads): a size out of range, sizes that do not fit together,
  // or a choice that the family's files cannot say.
  void validate() const;
};

}  // namespace retort::models
