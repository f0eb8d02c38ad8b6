// Keys and values of the tokens seen so far, per executed layer, for generation. A layer's first append
// allocates `capacity` tokens in the keys' dtype; append returns views of all that is there. One thread; no
// gradients.
#pragma once

#include <ATen/ATen.h>

#include <utility>
#include <vector>

namespace retort::models {

class KvCache {
 public:
  KvCache(int64_t layers, int64_t batch, int64_t kv_heads, int64_t head_dim, int64_t capacity);
  int64_t length() const { return length_; }  // tokens complete in all layers
  int64_t capacity() const { return capacity_; }
  // Stores k_BTGK and v_BTGK of `layer` after length() and returns [B, length + T, G, K] of both. ShapeError
  // beyond capacity.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k_BTGK, const at::Tensor& v_BTGK);
  void advance(int64_t tokens) { length_ += tokens; }  // after the last layer
  void keep(const at::Tensor& rows);                   // these rows of the batch (i64) stay, in this order
  void shorten(int64_t tokens);                        // the first so many tokens stay
  void clear() { shorten(0); }

  // i64 [batch]: all before it is padding, in a batch of unequal prompts; undefined: none.
  at::Tensor start_B;

  // The tokens that it holds and their positions [B, length], for a model that may have to compute its keys
  // again; undefined unless that model sets them.
  at::Tensor tokens_BT, positions_BT;

 private:
  int64_t length_ = 0, batch_, kv_heads_, head_dim_, capacity_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace retort::models
