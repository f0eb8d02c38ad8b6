#include "kernels/attention.h"

#include "core/error.h"
#include "core/shape.h"
#include "kernels/reference.h"

namespace retort::kernels {

namespace {

void check_arguments(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionMask& mask) {
  check_shape("attention", "q_BTHK", q, {-1, -1, -1, -1});
  check_shape("attention", "k_BSGK", k, {q.size(0), -1, -1, q.size(3)});
  check_shape("attention", "v_BSGK", v, {k.size(0), k.size(1), k.size(2), k.size(3)});
  check(k.size(2) > 0 && q.size(2) % k.size(2) == 0,
        "[attention] query heads must be a multiple of key/value heads, got {} and {}", q.size(2), k.size(2));
  check(q.size(1) <= k.size(1), "[attention] queries must be the last of the keys, got {} queries and {} keys",
        q.size(1), k.size(1));
  check(mask.window >= 0, "[attention] window must be >= 0, got {}", mask.window);
  if (mask.document_BS.defined()) check_shape("attention", "document_BS", mask.document_BS, {k.size(0), k.size(1)});
}

}  // namespace

at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale) {
  check_arguments(q_BTHK, k_BSGK, v_BSGK, mask);
  const int64_t queries = q_BTHK.size(1), keys = k_BSGK.size(1);
  // LibTorch's causal flag aligns the mask to the first key, so it serves only where T = S.
  const bool causal = queries == keys && !mask.document_BS.defined() && (mask.window == 0 || mask.window >= keys);
  std::optional<at::Tensor> visible;
  if (!causal) visible = reference::visible_BTS(mask, queries, keys, q_BTHK.device());
  return at::scaled_dot_product_attention(q_BTHK.transpose(1, 2), k_BSGK.transpose(1, 2), v_BSGK.transpose(1, 2),
                                          visible, 0.0, causal, scale, k_BSGK.size(2) != q_BTHK.size(2))
      .transpose(1, 2);
}

}  // namespace retort::kernels
