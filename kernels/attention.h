// Causal attention with grouped queries, a sliding window and document boundaries.
//   y_i = sum_j softmax_j(scale * q_i . k_j) v_j over the j that i may see
// Query i is at position (S - T) + i of the S keys, so T < S is decoding after a cache. Key j is visible when
// 0 <= i - j, i - j < window (window > 0), and both belong to one document (document_BS given). Query head h
// reads key/value head h / (H / G). B batch, T queries, S keys, H heads, G kv heads, K head dim. On the CPU
// blocks that no query may see are skipped, and only the log-sum-exp of each row is kept; a handful of
// queries after a cache, other dtypes and other devices go to LibTorch. f32 or bf16, softmax in f32.
// Differentiable in q, k, v. Throws ShapeError.
//
// On a device LibTorch's flash kernels take bf16 and half, with a K that 8 divides and up to 256: what has gradients; windows;
// several queries after a cache; and documents whose lengths are given. Memory then grows with the row. What else has gradients
// goes to its memory-efficient kernels where K is a multiple of 16 bytes (f32 most of all), else to products and a softmax; the
// rest is LibTorch's choice. These have a mask [B, 1, T, S] where the rows are not plain. What has gradients has one order
// of sums in all of them.
#pragma once

#include <ATen/ATen.h>

#include "core/document_lengths.h"

namespace retort::kernels {

struct AttentionMask {
  int64_t window = 0;            // 0: unlimited
  at::Tensor document_BS = {};   // i64 or i32; undefined: one document
  DocumentLengths lengths = {};  // of document_BS, on the tensors' device; the CPU needs none
};

at::Tensor attention(const at::Tensor& q_BTHK, const at::Tensor& k_BSGK, const at::Tensor& v_BSGK,
                     const AttentionMask& mask, double scale);  // [B, T, H, K]

}  // namespace retort::kernels
