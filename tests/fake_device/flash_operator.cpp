// N tokens of all sequences, H query heads, G key heads, K their width; n and s tokens of one sequence.
#include "tests/fake_device/flash_operator.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/graph.h"
#include "tests/fake_device/host_operator.h"
#include "tests/fake_device/streams.h"

namespace retort::testing {
namespace {

using MaybeTensor = std::optional<at::Tensor>;
using MaybeInt = std::optional<c10::SymInt>;

std::atomic<int64_t> forwards{0}, backwards{0};

struct Span {
  int64_t q, n, k, s;  // n queries from q, s keys from k
};

// One call, checked.
struct Call {
  std::vector<Span> sequences;  // in rows of the flattened tensors
  int64_t left;                 // keys before a query that it sees, or -1
  double scale;
};

void check_operands(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, bool packed) {
  const int64_t dim = packed ? 3 : 4;
  for (const at::Tensor& x : {query, key, value}) {
    TORCH_CHECK(x.device() == query.device() && x.device().type() == fake_device().type(),
                "flash: tensors of several devices");
    TORCH_CHECK(x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf, "flash: ", x.scalar_type());
    TORCH_CHECK(x.scalar_type() == query.scalar_type(), "flash: several dtypes");
    TORCH_CHECK(x.dim() == dim && x.stride(-1) == 1, "flash: ", x.sizes(), " with strides ", x.strides());
    TORCH_CHECK(x.size(-1) == query.size(-1), "flash: heads of several widths");
    if (!packed) TORCH_CHECK(x.size(0) == query.size(0), "flash: batches of several sizes");
  }
  TORCH_CHECK(key.sizes() == value.sizes(), "flash: keys ", key.sizes(), ", values ", value.sizes());
  const int64_t K = query.size(-1);
  TORCH_CHECK(K % 8 == 0 && K <= 256, "flash: heads of ", K);
  TORCH_CHECK(query.size(-2) % key.size(-2) == 0, "flash: query heads over key heads");
}

std::vector<int64_t> lengths_on_host(const at::Tensor& cumulative, const at::Tensor& query, int64_t tokens,
                                     int64_t longest) {
  TORCH_CHECK(cumulative.device() == query.device() && cumulative.scalar_type() == at::kInt &&
                  cumulative.dim() == 1 && cumulative.is_contiguous() && cumulative.numel() >= 2,
              "flash: cumulative lengths ", cumulative.toString(), " ", cumulative.sizes());
  TORCH_CHECK(cumulative.numel() <= 65536, "flash: a grid has 65535 sequences");
  Streams::get().reads(cumulative);
  const at::Tensor host = on_host(cumulative).to(at::kLong);
  std::vector<int64_t> out(host.const_data_ptr<int64_t>(), host.const_data_ptr<int64_t>() + host.numel());
  TORCH_CHECK(out.front() == 0 && out.back() == tokens, "flash: lengths from ", out.front(), " to ",
              out.back(), " of ", tokens);
  for (size_t i = 1; i < out.size(); ++i)
    TORCH_CHECK(out[i] >= out[i - 1] && out[i] - out[i - 1] <= longest, "flash: a sequence of ",
                out[i] - out[i - 1], ", at most ", longest);
  return out;
}

Call checked(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
             const MaybeTensor& cum_q, const MaybeTensor& cum_k, int64_t max_q, int64_t max_k, double dropout,
             bool causal, std::optional<double> scale, const MaybeInt& left, const MaybeInt& right) {
  const bool packed = cum_q && cum_q->defined();
  TORCH_CHECK(packed == (cum_k && cum_k->defined()), "flash: lengths of queries or of keys alone");
  check_operands(query, key, value, packed);
  TORCH_CHECK(dropout == 0.0 && causal && scale, "flash: only causal, scaled and without dropout here");
  TORCH_CHECK(!right || right->expect_int() == 0, "flash: sees ahead");
  TORCH_CHECK(max_q > 1, "flash: one query a sequence is laid out otherwise");
  Call out{{}, left ? left->expect_int() : -1, *scale};
  if (!packed) {
    const int64_t T = query.size(1), S = key.size(1);
    TORCH_CHECK(max_q == T && max_k == S && T <= S, "flash: rows of ", T, " and ", S);
    for (int64_t b = 0; b < query.size(0); ++b) out.sequences.push_back({b * T, T, b * S, S});
    return out;
  }
  TORCH_CHECK(Graph::under_way(query.device().index()) == nullptr, "flash: a graph would keep these lengths");
  const auto q = lengths_on_host(*cum_q, query, query.size(0), max_q),
             k = lengths_on_host(*cum_k, query, key.size(0), max_k);
  TORCH_CHECK(q.size() == k.size(), "flash: numbers of sequences");
  for (size_t i = 1; i < q.size(); ++i)
    out.sequences.push_back({q[i - 1], q[i] - q[i - 1], k[i - 1], k[i] - k[i - 1]});
  return out;
}

// [N, H, K] in f64.
at::Tensor wide(const at::Tensor& host) {
  return host.to(at::kDouble).reshape({-1, host.size(-2), host.size(-1)});
}
void give(const at::Tensor& host, const at::Tensor& values) { host.copy_(values.reshape(host.sizes())); }

// One sequence's [H, n, s] scores; keys of a group are repeated.
at::Tensor scores(const Call& call, const at::Tensor& q_HnK, const at::Tensor& k_HsK) {
  const int64_t n = q_HnK.size(1), s = k_HsK.size(1);
  const at::Tensor place = at::arange(n).unsqueeze(1) + (s - n) - at::arange(s);  // bottom right
  at::Tensor hidden = place < 0;
  if (call.left >= 0) hidden = hidden | (place > call.left);
  return (at::matmul(q_HnK, k_HsK.transpose(1, 2)) * call.scale).masked_fill(hidden, -INFINITY);
}

at::Tensor part(const at::Tensor& x_NHK, int64_t begin, int64_t count) {
  return x_NHK.narrow(0, begin, count).transpose(0, 1);
}

at::Tensor repeated(const at::Tensor& x_GsK, int64_t heads) {
  return x_GsK.repeat_interleave(heads / x_GsK.size(0), 0);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const MaybeTensor& cum_q,
    const MaybeTensor& cum_k, c10::SymInt max_q, c10::SymInt max_k, double dropout, bool causal,
    bool return_debug_mask, std::optional<double> scale, MaybeInt left, MaybeInt right,
    const MaybeTensor& seqused_k, const MaybeTensor& alibi_slopes) {
  TORCH_CHECK(!return_debug_mask && !seqused_k && !alibi_slopes, "flash: an argument that has no use here");
  const Call call = checked(query, key, value, cum_q, cum_k, max_q.expect_int(), max_k.expect_int(), dropout,
                            causal, scale, left, right);
  ++forwards;
  const at::TensorOptions there = query.options();
  const int64_t H = query.size(-2), N = query.numel() / (H * query.size(-1));
  const at::Tensor out = at::empty_like(query), logsumexp = at::empty({H, N}, there.dtype(at::kFloat)),
                   seeds = at::empty({2}, there.dtype(at::kUInt64));
  enqueue(query, [=, in_q = input(query), in_k = input(key), in_v = input(value), to_y = output(out),
                  to_lse = output(logsumexp)] {
    const at::Tensor q = wide(in_q), k = wide(in_k), v = wide(in_v), y = at::full_like(q, NAN);
    const at::Tensor lse = at::full({H, N}, NAN, at::kDouble);
    for (const Span& span : call.sequences) {
      if (span.n == 0) continue;
      const at::Tensor z = scores(call, part(q, span.q, span.n), repeated(part(k, span.k, span.s), H));
      part(y, span.q, span.n).copy_(at::matmul(at::softmax(z, -1), repeated(part(v, span.k, span.s), H)));
      lse.narrow(1, span.q, span.n).copy_(at::logsumexp(z, -1));
    }
    give(to_y, y);
    give(to_lse, lse);
  });
  return {out, logsumexp, seeds, at::empty({}, seeds.options()), at::empty({0}, there)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(
    const at::Tensor& grad_out, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& out, const at::Tensor& logsumexp, const at::Tensor& cum_q, const at::Tensor& cum_k,
    c10::SymInt max_q, c10::SymInt max_k, double dropout, bool causal, const at::Tensor& seeds,
    const at::Tensor& unused, std::optional<double> scale, MaybeInt left, MaybeInt right) {
  const Call call = checked(query, key, value, cum_q, cum_k, max_q.expect_int(), max_k.expect_int(), dropout,
                            causal, scale, left, right);
  TORCH_CHECK(
      at::globalContext().deterministicAlgorithms() && !at::globalContext().deterministicAlgorithmsWarnOnly(),
      "flash: gradients in any order");
  TORCH_CHECK(seeds.defined() && unused.defined(), "flash: what forward gave");
  for (const at::Tensor& x : {grad_out, out})
    TORCH_CHECK(x.sizes() == query.sizes() && x.scalar_type() == query.scalar_type() &&
                    x.device() == query.device() && x.stride(-1) == 1,
                "flash: ", x.sizes(), " for queries ", query.sizes());
  ++backwards;
  const int64_t H = query.size(-2), G = key.size(-2), N = query.numel() / (H * query.size(-1));
  TORCH_CHECK(logsumexp.scalar_type() == at::kFloat && logsumexp.dim() == 2 && logsumexp.size(0) == H &&
                  logsumexp.size(1) == N && logsumexp.device() == query.device(),
              "flash: lse of ", logsumexp.sizes());
  const at::Tensor grad_q = at::empty_like(query), grad_k = at::empty_like(key),
                   grad_v = at::empty_like(value);
  enqueue(query, [=, in_q = input(query), in_k = input(key), in_v = input(value), in_y = input(out),
                  in_dy = input(grad_out), in_lse = input(logsumexp), to_q = output(grad_q),
                  to_k = output(grad_k), to_v = output(grad_v)] {
    const at::Tensor q = wide(in_q), k = wide(in_k), v = wide(in_v), y = wide(in_y), dy = wide(in_dy);
    const at::Tensor lse = in_lse.to(at::kDouble);
    const at::Tensor dq = at::full_like(q, NAN), dk = at::full_like(k, NAN), dv = at::full_like(v, NAN);
    const auto of_groups = [&](const at::Tensor& x_HsK) {
      return x_HsK.view({G, H / G, x_HsK.size(1), x_HsK.size(2)}).sum(1);
    };
    for (const Span& span : call.sequences) {
      if (span.n == 0) continue;
      const at::Tensor q_HnK = part(q, span.q, span.n), k_HsK = repeated(part(k, span.k, span.s), H),
                       v_HsK = repeated(part(v, span.k, span.s), H), g_HnK = part(dy, span.q, span.n);
      const at::Tensor p = (scores(call, q_HnK, k_HsK) - lse.narrow(1, span.q, span.n).unsqueeze(-1)).exp();
      const at::Tensor mean = (g_HnK * part(y, span.q, span.n)).sum(-1, true);
      const at::Tensor dz = p * (at::matmul(g_HnK, v_HsK.transpose(1, 2)) - mean) * call.scale;
      part(dq, span.q, span.n).copy_(at::matmul(dz, k_HsK));
      part(dk, span.k, span.s).copy_(of_groups(at::matmul(dz.transpose(1, 2), q_HnK)));
      part(dv, span.k, span.s).copy_(of_groups(at::matmul(p.transpose(1, 2), g_HnK)));
    }
    give(to_q, dq);
    give(to_k, dk);
    give(to_v, dv);
  });
  return {grad_q, grad_k, grad_v};
}

// As on a GPU that has the kernels.
int64_t choice(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
               const MaybeTensor& mask, double dropout, bool, std::optional<double>, bool enable_gqa) {
  const bool takes = query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf;
  TORCH_CHECK(query.dim() == 4 && key.sizes() == value.sizes() && query.size(3) == key.size(3) &&
                  (enable_gqa || query.size(1) == key.size(1)),
              "flash: asked about ", query.sizes(), " and ", key.sizes());
  return static_cast<int64_t>(takes && !mask && dropout == 0.0 ? at::SDPBackend::flash_attention
                                                               : at::SDPBackend::math);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("_flash_attention_forward", &forward);
  m.impl("_flash_attention_backward", &backward);
  m.impl("_fused_sdp_choice", &choice);
}

}  // namespace

FlashCalls flash_calls() { return {forwards, backwards}; }

}  // namespace retort::testing
