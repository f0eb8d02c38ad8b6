#include "models/kv_cache.h"

#include "core/error.h"
#include "core/shape.h"

namespace retort::models {

KvCache::KvCache(int64_t layers, int64_t batch, int64_t kv_heads, int64_t head_dim, int64_t capacity)
    : batch_(batch),
      kv_heads_(kv_heads),
      head_dim_(head_dim),
      capacity_(capacity),
      keys_(static_cast<size_t>(layers)),
      values_(static_cast<size_t>(layers)) {}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, const at::Tensor& k_BTGK,
                                                  const at::Tensor& v_BTGK) {
  check_shape("kv_cache", "k_BTGK", k_BTGK, {batch_, -1, kv_heads_, head_dim_});
  const int64_t tokens = k_BTGK.size(1);
  check_shape("kv_cache", "v_BTGK", v_BTGK, {batch_, tokens, kv_heads_, head_dim_});
  check(length_ + tokens <= capacity_, "[kv_cache] holds {} tokens, got {} after {}", capacity_, tokens,
        length_);
  const at::NoGradGuard no_grad;
  const auto store = [&](at::Tensor& all, const at::Tensor& fresh) {
    if (!all.defined()) all = at::empty({batch_, capacity_, kv_heads_, head_dim_}, fresh.options());
    all.narrow(1, length_, tokens).copy_(fresh);
    return all.narrow(1, 0, length_ + tokens);
  };
  const auto index = static_cast<size_t>(layer);
  return {store(keys_.at(index), k_BTGK), store(values_.at(index), v_BTGK)};
}

void KvCache::keep(const at::Tensor& rows) {
  batch_ = rows.numel();
  const auto select = [&](at::Tensor& all) {
    if (all.defined()) all = all.index_select(0, rows);
  };
  for (at::Tensor& keys : keys_) select(keys);
  for (at::Tensor& values : values_) select(values);
  for (at::Tensor* other : {&start_B, &tokens_BT, &positions_BT}) select(*other);
}

void KvCache::shorten(int64_t tokens) {
  check(tokens >= 0 && tokens <= length_, "[kv_cache] holds {} tokens, of which {} cannot stay", length_,
        tokens);
  length_ = tokens;
  for (at::Tensor* other : {&tokens_BT, &positions_BT})
    if (other->defined()) *other = other->narrow(1, 0, tokens);
}

}  // namespace retort::models
