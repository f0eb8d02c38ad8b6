// B rows, T queries, S keys, H heads, K their width.
#include "tests/fake_device/efficient_operator.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cmath>
#include <optional>
#include <tuple>

#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/host_operator.h"

namespace retort::testing {
namespace {

using MaybeTensor = std::optional<at::Tensor>;
using MaybeInt = std::optional<int64_t>;

constexpr int64_t kNone = 0, kFromBottomRight = 2;  // what is causal
constexpr int64_t kStatistics = 32;                 // the rows' are in runs of so many

std::atomic<int64_t> forwards{0}, backwards{0};

void check_rows(const at::Tensor& x, const at::Tensor& query, int64_t tokens) {
  constexpr int64_t kAccess = 16;
  TORCH_CHECK(x.device() == query.device() && x.device().type() == fake_device().type() &&
                  x.scalar_type() == query.scalar_type(),
              "efficient: tensors of several devices or dtypes");
  TORCH_CHECK(x.scalar_type() != at::kDouble && x.dim() == 4 && x.size(0) == query.size(0) &&
                  x.size(1) == tokens && x.size(2) == query.size(2) && x.size(3) == query.size(3),
              "efficient: ", x.toString(), " ", x.sizes(), " beside queries ", query.sizes());
  TORCH_CHECK(x.stride(3) == 1 && x.size(3) * x.element_size() % kAccess == 0 &&
                  x.stride(1) * x.element_size() % kAccess == 0 &&
                  x.stride(2) * x.element_size() % kAccess == 0,
              "efficient: ", x.sizes(), " with strides ", x.strides());
}

void check_call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const MaybeTensor& bias,
                const MaybeTensor& cum_q, const MaybeTensor& cum_k, double dropout, int64_t causal,
                const std::optional<double>& scale) {
  check_rows(q, q, q.size(1));
  check_rows(k, q, k.size(1));
  check_rows(v, q, k.size(1));
  TORCH_CHECK(!cum_q && !cum_k && dropout == 0.0 && scale, "efficient: an argument that has no use here");
  TORCH_CHECK(causal == (bias ? kNone : kFromBottomRight), "efficient: causal ", causal);
  if (!bias) return;
  const std::array<int64_t, 4> shape{q.size(0), q.size(2), q.size(1), k.size(1)};
  TORCH_CHECK(bias->scalar_type() == q.scalar_type() && bias->device() == q.device() &&
                  bias->sizes() == at::IntArrayRef(shape) && bias->stride(3) == 1 &&
                  bias->stride(2) % 16 == 0,
              "efficient: bias ", bias->sizes(), " with strides ", bias->strides());
}

at::Tensor heads(const at::Tensor& x_BTHK) { return x_BTHK.to(at::kDouble).transpose(1, 2); }

at::Tensor scores(const at::Tensor& q_BHTK, const at::Tensor& k_BHSK, const MaybeTensor& bias, double scale) {
  const at::Tensor z = at::matmul(q_BHTK, k_BHSK.transpose(2, 3)) * scale;
  if (bias) return z + bias->to(at::kDouble);
  return z.masked_fill(at::ones({z.size(2), z.size(3)}, at::kBool).triu(1 + z.size(3) - z.size(2)),
                       -INFINITY);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt> forward(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const MaybeTensor& bias,
    const MaybeTensor& cum_q, const MaybeTensor& cum_k, std::optional<c10::SymInt> max_q,
    std::optional<c10::SymInt> max_k, double dropout, int64_t causal, bool statistics,
    std::optional<double> scale, const MaybeTensor& lengths, MaybeInt window) {
  check_call(query, key, value, bias, cum_q, cum_k, dropout, causal, scale);
  TORCH_CHECK(!max_q && !max_k && statistics && !lengths && !window,
              "efficient: an argument that has no use here");
  ++forwards;
  const int64_t B = query.size(0), T = query.size(1), H = query.size(2);
  const at::Tensor out = at::empty_like(query),
                   lse_BHT = at::empty({B, H, (T + kStatistics - 1) / kStatistics * kStatistics},
                                       query.options().dtype(at::kFloat));
  enqueue(query, [=, q = input(query), k = input(key), v = input(value), y = output(out),
                  lse = output(lse_BHT), b = bias ? MaybeTensor(input(*bias)) : std::nullopt] {
    const at::Tensor z = scores(heads(q), heads(k), b, *scale);
    y.copy_(at::matmul(at::softmax(z, -1), heads(v)).transpose(1, 2));
    lse.fill_(INFINITY);
    lse.narrow(2, 0, T).copy_(at::logsumexp(z, -1));
  });
  const at::Tensor no_seed = at::empty({}, at::kLong);
  return {out, lse_BHT, no_seed, no_seed.clone(), T, key.size(1)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_out, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const MaybeTensor& bias, const at::Tensor& out, const MaybeTensor& cum_q, const MaybeTensor& cum_k,
    c10::SymInt max_q, c10::SymInt max_k, const at::Tensor& lse_BHT, double dropout, const at::Tensor& seed,
    const at::Tensor& offset, int64_t causal, bool bias_requires_grad, std::optional<double> scale,
    MaybeInt blocks, MaybeInt window, bool shared_storage) {
  check_call(query, key, value, bias, cum_q, cum_k, dropout, causal, scale);
  const int64_t T = query.size(1);
  check_rows(grad_out, query, T);
  check_rows(out, query, T);
  TORCH_CHECK(blocks == 1, "efficient: gradients in any order");
  TORCH_CHECK(max_q == T && max_k == key.size(1) && !bias_requires_grad && !window && !shared_storage &&
                  seed.defined() && offset.defined(),
              "efficient: an argument that has no use here");
  TORCH_CHECK(lse_BHT.scalar_type() == at::kFloat && lse_BHT.dim() == 3 && lse_BHT.size(2) % kStatistics == 0,
              "efficient: lse of ", lse_BHT.sizes());
  ++backwards;
  const at::Tensor grad_q = at::empty_like(query), grad_k = at::empty_like(key),
                   grad_v = at::empty_like(value);
  enqueue(query, [=, in_q = input(query), in_k = input(key), in_v = input(value), in_y = input(out),
                  in_dy = input(grad_out), in_lse = input(lse_BHT), dq = output(grad_q), dk = output(grad_k),
                  dv = output(grad_v), b = bias ? MaybeTensor(input(*bias)) : std::nullopt] {
    const at::Tensor q = heads(in_q), k = heads(in_k), v = heads(in_v), dy = heads(in_dy);
    const at::Tensor lse = in_lse.narrow(2, 0, T).to(at::kDouble).unsqueeze(-1);
    const at::Tensor p = (scores(q, k, b, *scale) - lse).exp(), mean = (dy * heads(in_y)).sum(-1, true);
    const at::Tensor dz = p * (at::matmul(dy, v.transpose(2, 3)) - mean) * *scale;
    dq.copy_(at::matmul(dz, k).transpose(1, 2));
    dk.copy_(at::matmul(dz.transpose(2, 3), q).transpose(1, 2));
    dv.copy_(at::matmul(p.transpose(2, 3), dy).transpose(1, 2));
  });
  return {grad_q, grad_k, grad_v, at::Tensor()};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_efficient_attention_forward", &forward);
  m.impl("_efficient_attention_backward", &backward);
}

}  // namespace

EfficientCalls efficient_calls() { return {forwards, backwards}; }

}  // namespace retort::testing
