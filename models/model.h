// A language model: tokens to hidden states. No loss, no head product, no ranks: the head belongs to the
// objective, which walks over rows in chunks (kernels/linear_loss.h), and parallelism is applied from
// outside. One thread uses a model at a time. B batch, T tokens, D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/head.h"
#include "models/decoder_spec.h"
#include "models/parameters.h"

namespace retort::models {

// What an executed layer held: its output, before any final norm, and its attention's queries, keys and
// values, before the rotation. Differentiable. H query heads, G key heads, K their width.
struct LayerTap {
  int64_t layer = 0;  // from 0
  at::Tensor h_BTD = {}, q_BTHK = {}, k_BTGK = {}, v_BTGK = {};
};

struct TokenBlock {
  at::Tensor tokens_BT;          // i64
  at::Tensor positions_BT = {};  // i64; undefined: 0 .. T-1 in every row (or from the cache's length)
  at::Tensor document_BT = {};   // i64, of the host; undefined: one document a row
  std::vector<LayerTap>* taps = nullptr;  // hidden() fills these in, each below Model::layers()
  at::Tensor noise_BTD = {};              // f32, added to the tokens' embeddings; undefined: none
};

class KvCache;       // models/kv_cache.h
class WeightGroups;  // models/weight_groups.h

using Head = kernels::Head;  // of the working copy, which is differentiable

// The rows of the matrix that are tokens, and the spec's cap.
Head head_of(const Parameter& matrix, const DecoderSpec& spec, const LowRank& adapter = {});
// Files of other software hold the tokens alone: no value of a row could keep it from taking probability.
bool is_padded(const Parameter& p, const DecoderSpec& spec);  // a table with more rows than there are tokens
DecoderSpec without_padding(DecoderSpec spec);

// A model that is a stack of Model::layers() layers, for work that goes through them one by one
// (quantize/calibration.h): hidden() is embed(), then run_layer() of each, then the final norm. `block` is
// the same in every piece.
class LayerStack {
 public:
  virtual ~LayerStack() = default;
  virtual at::Tensor embed(const TokenBlock& block) = 0;  // the residual stream [B, T, D] before layer 0
  virtual at::Tensor run_layer(int64_t n, const at::Tensor& x_BTD, const TokenBlock& block) = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  // h_BTD after the final norm, f32. With a cache, tokens continue it and are appended to it.
  virtual at::Tensor hidden(const TokenBlock& block, KvCache* cache = nullptr) = 0;
  // An empty cache for `batch` sequences of up to `capacity` tokens (models/kv_cache.h).
  virtual std::unique_ptr<KvCache> make_cache(int64_t batch, int64_t capacity) const = 0;
  // Of spec().columns() rows: the padding of a vocabulary is no part of it, so that training, distillation,
  // evaluation and generation agree that it takes no probability.
  virtual Head head() const = 0;
  virtual const DecoderSpec& spec() const = 0;  // what it was made from (make_model in models/family.h)
  virtual void set_tokens(int64_t ids) = 0;     // DecoderSpec::set_tokens(): how many ids its tokenizer has
  int64_t tokens() const { return spec().columns(); }
  virtual Parameters& parameters() = 0;
  virtual const Parameters& parameters() const = 0;
  virtual int64_t vocabulary() const = 0;  // rows of the embedding, padding included
  virtual int64_t context() const = 0;     // longest sequence that positions allow
  virtual int64_t width() const = 0;
  virtual int64_t layers() const { return 0; }           // executed ones, which a TokenBlock may tap
  virtual LayerStack* layer_stack() { return nullptr; }  // nullptr: it is more than a stack of layers
  // 6 * (matmul parameters executed, head included, lookup not) + 12 * L * heads * head_dim * T: forward and
  // backward for one token in a sequence of T.
  virtual double flops_per_token(int64_t tokens) const = 0;
  virtual WeightGroups* weight_groups() { return nullptr; }  // nullptr: it reads its weights in no such order
};

}  // namespace retort::models
