// Rows of bench_device: norms, gates, rope, the embedding's gradient, sums, losses on rows of logits, updates.
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "bench/device_table.h"
#include "kernels/divergences.h"
#include "kernels/reference.h"
#include "kernels/row_sums.h"

namespace retort::bench {
namespace {

using kernels::cuda::Ops;

// Targets: the shares of a copy's rate that kernels which only move bytes are to reach.
constexpr double kForward = 0.85, kBackward = 0.75, kUpdate = 0.85;
constexpr double kEps = 1e-5;

Tensors both(const std::pair<at::Tensor, at::Tensor>& two) { return {two.first, two.second}; }
at::Tensor sum_of_squares(const at::Tensor& x) { return x.square().mean(-1, true); }

// The formula and its gradient by hand, in the dtype asked for.
struct RmsNorm {
  at::Tensor x, w, dy;
  at::Tensor forward(at::ScalarType dtype, const at::Tensor& added = {}) const {
    const at::Tensor z = added.defined() ? x.to(dtype) + added.to(dtype) : x.to(dtype);
    return z * at::rsqrt(sum_of_squares(z) + kEps) * w.to(dtype);
  }
  Tensors backward(at::ScalarType dtype, const at::Tensor& dsum = {}) const {
    const at::Tensor z = x.to(dtype), g = dy.to(dtype) * w.to(dtype), r = at::rsqrt(sum_of_squares(z) + kEps),
                     n = z * r, dx = r * (g - n * (g * n).mean(-1, true));
    return {dsum.defined() ? dx + dsum.to(dtype) : dx, (dy.to(dtype) * n).sum(0)};
  }
};

std::vector<Row> rms_norms(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 6), D = place.size(2048, 64);
  const RmsNorm norm{place.normal({N, D}), place.normal({D}, at::kFloat), place.normal({N, D})};
  const at::Tensor added = place.normal({N, D}), dsum = place.normal({N, D}),
                   rstd = ops.rms_norm(norm.x, norm.w, kEps).second;
  const std::string shape = fmt::format("{} x {}", N, D);
  const double n = count_of(N, D);
  return {{"RMS norm", shape, 4 * n,
           [=, &ops]() -> Tensors { return {ops.rms_norm(norm.x, norm.w, kEps).first}; },
           [=]() -> Tensors { return {norm.forward(at::kDouble)}; }, 0x1p-7,
           [=]() -> Tensors { return {norm.forward(at::kBFloat16)}; }, kForward},
          {"RMS norm, backward", shape, 6 * n,
           [=, &ops] { return both(ops.rms_norm_backward(norm.dy, norm.x, norm.w, rstd)); },
           [=] { return norm.backward(at::kDouble); }, 0x1p-6, [=] { return norm.backward(at::kBFloat16); },
           kBackward},
          {"residual and RMS norm", shape, 8 * n,
           [=, &ops]() -> Tensors {
             const Ops::Added out = ops.add_rms_norm(norm.x, added, norm.w, kEps);
             return {out.sum_ND, out.y_ND};
           },
           [=]() -> Tensors {
             return {norm.x.to(at::kDouble) + added.to(at::kDouble), norm.forward(at::kDouble, added)};
           },
           0x1p-7, [=]() -> Tensors { return {norm.forward(at::kBFloat16, added)}; }, kForward},
          {"residual and RMS norm, backward", shape, 8 * n,
           [=, &ops] { return both(ops.rms_norm_backward(norm.dy, norm.x, norm.w, rstd, dsum)); },
           [=] { return norm.backward(at::kDouble, dsum); }, 0x1p-6,
           [=] { return norm.backward(at::kBFloat16, dsum); }, kBackward}};
}

// LibTorch's own as the peer, with weights of x's dtype.
std::vector<Row> layer_norms(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 6), D = place.size(2048, 64);
  const at::Tensor x = place.normal({N, D}), dy = place.normal({N, D}), w = place.normal({D}, at::kFloat),
                   b = place.normal({D}, at::kFloat), w16 = w.to(at::kBFloat16), b16 = b.to(at::kBFloat16);
  const at::Tensor moments = ops.layer_norm(x, w, b, kEps).second;
  const auto theirs = at::native_layer_norm(x, {D}, w16, b16, kEps);
  const auto centred = [=] {
    const at::Tensor z = x.to(at::kDouble), c = z - z.mean(-1, true);
    return std::pair{c, at::rsqrt(sum_of_squares(c) + kEps)};
  };
  const std::string shape = fmt::format("{} x {}", N, D);
  const double n = count_of(N, D);
  return {
      {"layer norm", shape, 4 * n, [=, &ops]() -> Tensors { return {ops.layer_norm(x, w, b, kEps).first}; },
       [=]() -> Tensors {
         const auto [c, r] = centred();
         return {c * r * w + b};
       },
       0x1p-7, [=]() -> Tensors { return {std::get<0>(at::native_layer_norm(x, {D}, w16, b16, kEps))}; },
       kForward},
      {"layer norm, backward", shape, 6 * n,
       [=, &ops] { return both(ops.layer_norm_backward(dy, x, w, moments)); },
       [=]() -> Tensors {
         const auto [c, r] = centred();
         const at::Tensor y = c * r, d = dy.to(at::kDouble), g = d * w;
         return {r * (g - g.mean(-1, true) - y * (g * y).mean(-1, true)),
                 at::stack({(d * y).sum(0), d.sum(0)})};
       },
       0x1p-6,
       [=]() -> Tensors {
         return {std::get<0>(at::native_layer_norm_backward(
             dy, x, {D}, std::get<1>(theirs), std::get<2>(theirs), w16, b16, {true, true, true}))};
       },
       kBackward}};
}

// The formula and its slope by hand, in the dtype asked for.
struct Activation {
  const char* name;
  kernels::Gate gate;
  at::Tensor (*value)(const at::Tensor& a);
  at::Tensor (*slope)(const at::Tensor& a);
};
const Activation kActivations[] = {
    {"SwiGLU", kernels::Gate::kSilu, [](const at::Tensor& a) { return at::silu(a); },
     [](const at::Tensor& a) {
       const at::Tensor s = at::sigmoid(a);
       return s * (1 + a * (1 - s));
     }},
    {"GeGLU", kernels::Gate::kGeluTanh, [](const at::Tensor& a) { return at::gelu(a, "tanh"); },
     [](const at::Tensor& a) { return at::gelu_backward(at::ones_like(a), a, "tanh"); }},
    {"ReLU2 GLU", kernels::Gate::kRelu2, [](const at::Tensor& a) { return at::relu(a).square(); },
     [](const at::Tensor& a) { return 2 * at::relu(a); }}};

std::vector<Row> gates(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 6), F = place.size(5632, 96);
  const at::Tensor a = place.normal({N, F}), u = place.normal({N, F}), dy = place.normal({N, F});
  const std::string shape = fmt::format("{} x {}", N, F);
  const double n = count_of(N, F);
  std::vector<Row> out;
  for (const Activation& of : kActivations) {
    const auto forward = [=](at::ScalarType dtype) -> Tensors {
      return {of.value(a.to(dtype)) * u.to(dtype)};
    };
    const auto backward = [=](at::ScalarType dtype) -> Tensors {
      const at::Tensor p = a.to(dtype), g = dy.to(dtype);
      return {g * u.to(dtype) * of.slope(p), g * of.value(p)};
    };
    out.push_back({of.name, shape, 6 * n, [=, &ops]() -> Tensors { return {ops.gate(of.gate, a, u)}; },
                   [=] { return forward(at::kDouble); }, 0x1p-7, [=] { return forward(at::kBFloat16); },
                   kForward});
    out.push_back({fmt::format("{}, backward", of.name), shape, 10 * n,
                   [=, &ops] { return both(ops.gate_backward(of.gate, dy, a, u)); },
                   [=] { return backward(at::kDouble); }, 0x1p-7, [=] { return backward(at::kBFloat16); },
                   kBackward});
  }
  return out;
}

std::vector<Row> ropes(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 6), H = place.size(32, 4), G = place.size(4, 2), K = place.size(64, 16),
                P = place.size(2048, 6);
  const at::Tensor q = place.normal({N, H, K}), k = place.normal({N, G, K}),
                   positions = at::arange(N, place.options(at::kLong)).remainder(P);
  const auto tables = kernels::rope_tables(kernels::rope_frequencies(K, 10000.0, {}), P, place.device);
  const auto plain = [=](at::ScalarType dtype) -> Tensors {
    const auto one = [&](const at::Tensor& x) {
      return kernels::reference::rope(x.to(dtype).unsqueeze(0), tables, positions.unsqueeze(0)).squeeze(0);
    };
    return {one(q), one(k)};
  };
  return {{"rope on q and k", fmt::format("{} x ({} + {}) heads of {}", N, H, G, K),
           4 * count_of(N, (H + G) * K),
           [=, &ops] { return both(ops.rope(q, k, tables.cos_PK, tables.sin_PK, positions, 1.0)); },
           [=] { return plain(at::kDouble); }, 0x1p-7, [=] { return plain(at::kBFloat16); }}};
}

// With the sort of the ids. The peer fills the table with zeros first, and adds in any order.
std::vector<Row> embeddings(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 40), D = place.size(2048, 64), V = place.size(32000, 12);
  const at::Tensor dy = place.normal({N, D}), ids = place.below(V, {N});
  const at::Tensor table = at::zeros({V, D}, place.options(at::kFloat));
  const auto added = [=, &ops](const at::Tensor& to) -> Tensors {
    ops.embedding_backward(dy, ids, to);
    return {to};
  };
  const int64_t seen = std::get<0>(at::_unique(ids)).numel();
  return {{"embedding, backward", fmt::format("{} x {} of {}", N, D, V),
           2 * count_of(N, D) + 8 * count_of(seen, D), [=] { return added(table); },
           [=]() -> Tensors {  // on the CPU, which adds in order
             const at::Tensor zeros = at::zeros({V, D}, at::kDouble);
             return {zeros.index_add(0, ids.cpu(), dy.cpu().to(at::kDouble)).to(place.device)};
           },
           0x1p-20, [=]() -> Tensors { return {at::embedding_dense_backward(dy, ids, V, -1, false)}; }, 0,
           [=] { return added(at::zeros_like(table)); }}};
}

// What eight ranks have sent. The sum lies in the first leaf, so what is checked is one of copies.
std::vector<Row> sums(const Ops& ops, const Place& place) {
  const int64_t L = 8, n = place.size(int64_t{1} << 26, 5000);
  Tensors leaves;
  for (int64_t i = 0; i < L; ++i) leaves.push_back(place.normal({n}, at::kFloat));
  const auto add = [](const at::Tensor& a, const at::Tensor& b) { return a + b; };
  return {{"tree sum", fmt::format("{} leaves of {}", L, n), 4 * count_of(L + 1, n),
           [=, &ops]() -> Tensors { return {ops.tree_sum(leaves)}; },
           [=]() -> Tensors {
             return {std::accumulate(leaves.begin() + 1, leaves.end(), leaves[0].to(at::kDouble), add)};
           },
           0x1p-20,
           [=]() -> Tensors { return {std::accumulate(leaves.begin() + 1, leaves.end(), leaves[0], add)}; },
           0,
           [=, &ops]() -> Tensors {
             Tensors copies = leaves;
             copies[0] = leaves[0].clone();
             return {ops.tree_sum(copies)};
           }}};
}

// Loss and gradient in place of the logits: what is checked is that of copies.
std::vector<Row> losses(const Ops& ops, const Place& place) {
  const int64_t C = place.size(2048, 4), V = place.size(128256, 300);
  const at::Tensor start = place.normal({C, V}), teacher = place.normal({C, V}), labels = place.below(V, {C}),
                   logits = start.clone();
  using kernels::cuda::RowLossKind;
  using Terms = std::vector<kernels::cuda::RowLossTerm>;
  // The gradient of cross-entropy, and of forward and reverse KL, as eager LibTorch would have it.
  const auto composite = [=](double forward, double reverse, at::ScalarType dtype) -> Tensors {
    const at::Tensor log_q = at::log_softmax(start.to(dtype), -1), q = log_q.exp();
    at::Tensor g = (q - at::one_hot(labels, V).to(dtype)) * (1 - forward - reverse);
    if (forward + reverse == 0) return {g};
    const at::Tensor log_p = at::log_softmax(teacher.to(dtype), -1), pull = q * (log_q - log_p);
    return {g + (q - log_p.exp()) * forward + (pull - q * pull.sum(-1, true)) * reverse};
  };
  const auto row = [&](const char* name, double bytes, double forward, double reverse) {
    Terms terms{{RowLossKind::kCrossEntropy, 1 - forward - reverse}};
    if (forward > 0) terms.push_back({RowLossKind::kForwardKl, forward});
    if (reverse > 0) terms.push_back({RowLossKind::kReverseKl, reverse});
    const auto in_place = [=, &ops](const at::Tensor& student) -> Tensors {
      ops.row_losses(student, teacher, V, labels, terms, true);
      return {student};
    };
    return Row{name,
               fmt::format("{} x {}", C, V),
               bytes * count_of(C, V),
               [=] { return in_place(logits); },
               [=] { return composite(forward, reverse, at::kDouble); },
               0x1p-7,
               [=] { return composite(forward, reverse, at::kFloat); },
               0,
               [=] { return in_place(start.clone()); }};
  };
  return {row("cross-entropy, in place", 4, 0.0, 0.0),
          row("forward KL and cross-entropy, in place", 6, 0.5, 0.0),
          row("forward KL, reverse KL and cross-entropy, in place", 6, 0.5, 0.25)};
}

// Each other loss alone, in place too. Exact gradients of those with a teacher are made by the operations' plain versions, which
// take f64. Teacher and student are apart everywhere, as total variation's gradient leaps where they meet.
std::vector<Row> losses_alone(const Ops& ops, const Place& place) {
  const int64_t C = place.size(512, 4), V = place.size(128256, 300), K = 64;
  const at::Tensor start = place.normal({C, V}), logits = start.clone(), labels = place.below(V, {C}),
                   apart = place.normal({C, V}, at::kFloat).sign() * 0.5,
                   teacher = (start + apart).to(at::kBFloat16);
  const auto row = [=, &ops](const std::string& name, double bytes, const kernels::cuda::RowLossTerm& term,
                             const Work& exact) {
    const auto in_place = [=, &ops](const at::Tensor& student) -> Tensors {
      ops.row_losses(student, teacher, V, labels, {term}, true);
      return {student};
    };
    return Row{name + ", in place",
               fmt::format("{} x {}", C, V),
               bytes * count_of(C, V),
               [=] { return in_place(logits); },
               exact,
               0x1p-7,
               {},
               0,
               [=] { return in_place(start.clone()); }};
  };
  const auto taught = [=](const char* name, const kernels::RowLoss& loss) {
    const Work exact = [=]() -> Tensors {
      at::Tensor gradient = at::zeros_like(start, at::kDouble);
      loss({start.to(at::kDouble), teacher.to(at::kDouble), labels}, 1.0, gradient);
      return {gradient};
    };
    return row(name, 6, kernels::device_term(*loss.kernel, 1.0, {start, teacher, labels}), exact);
  };
  const auto [top, ids] = teacher.to(at::kFloat).topk(K);
  const at::Tensor weights = at::softmax(top, 1);
  const Work of_labels = [=, ids = ids]() -> Tensors {
    const at::Tensor q = at::softmax(start.to(at::kDouble), 1), w = weights.to(at::kDouble);
    return {q * w.sum(1, true) - at::zeros_like(q).scatter(1, ids, w)};
  };
  using kernels::Divergence, kernels::divergence_rows, kernels::cuda::RowLossKind;
  return {taught("reverse KL", divergence_rows(Divergence::kReverseKl, 1.0)),
          taught("JSD", divergence_rows(Divergence::kJsd, 1.0, 0.5)),
          taught("skew forward KL", divergence_rows(Divergence::kSkewForwardKl, 1.0, 0.1)),
          taught("skew reverse KL", divergence_rows(Divergence::kSkewReverseKl, 1.0, 0.1)),
          taught("total variation", divergence_rows(Divergence::kTotalVariation, 1.0)),
          taught("adaptive KL", divergence_rows(Divergence::kAdaptiveKl, 1.0)),
          taught("logit MSE", kernels::logit_mse_rows()),
          row(fmt::format("{} labels a row", K), 4, {RowLossKind::kLabels, 1.0, 1.0, 0.0, {ids, weights, {}}},
              of_labels)};
}

// AdamW on many tensors, without a working copy, with one in bf16 and with one on a grid, and the peer's state.
struct Updates {
  std::vector<Ops::AdamParameter> parameters;
  Tensors p, m, v, g, steps;
  Updates(const Place& place, int64_t tensors, int64_t n) {
    const auto f32 = place.options(at::kFloat);
    for (int64_t i = 0; i < tensors; ++i) {
      g.push_back(at::randn({n}, f32) * 0.01);
      parameters.push_back(
          {at::randn({n}, f32), at::zeros({n}, f32), at::zeros({n}, f32), g.back(), {}, 0.9999f});
      p.push_back(parameters.back().master.clone()), m.push_back(at::zeros({n}, f32));
      v.push_back(at::zeros({n}, f32)), steps.push_back(at::zeros({}, f32));
    }
  }
  std::vector<Ops::AdamParameter> with_copies(const std::optional<kernels::FittedGrid>& grid) const {
    std::vector<Ops::AdamParameter> out = parameters;
    for (Ops::AdamParameter& one : out)
      one.working = at::empty_like(one.master, at::kBFloat16), one.grid = grid;
    return out;
  }
};

std::vector<Row> updates(const Ops& ops, const Place& place) {
  const int64_t tensors = place.size(148, 3), n = place.size(838016, 5024);
  const Updates all(place, tensors, n);
  const kernels::FittedGrid q8_0{{kernels::Fit::kQ8_0, 32}, {kernels::RoundRule::kNearestAway, -127, 127}};
  const auto plain = all.parameters, copied = all.with_copies({}), on_grid = all.with_copies(q8_0);
  const kernels::cuda::AdamRates rates{0.9f, 0.1f, 0.95f, 0.05f, 1e-3f / 0.1f, 1 / std::sqrt(0.05f), 1e-8f};
  const at::Tensor verdict = at::ones({3}, place.options(at::kDouble)), first = all.g[0];
  const std::string shape = fmt::format("{} of {}", tensors, n);
  const double count = count_of(tensors, n);
  const auto update = [=, &ops](const std::vector<Ops::AdamParameter>& parameters) {
    return [=, &ops]() -> Tensors {
      ops.adamw(parameters, rates, verdict);
      return {parameters[0].working.defined() ? parameters[0].working : parameters[0].master};
    };
  };
  const at::Tensor before = plain[0].master.clone();
  const Work moved = [=]() -> Tensors {  // by the first step: each weight by lr towards its gradient's sign
    const at::Tensor d = first.to(at::kDouble);
    return {before.to(at::kDouble) * 0.9999 - 1e-3 * d / (d.abs() + 1e-8)};
  };
  const Work fitted = [=, &ops]() -> Tensors {  // what the grid makes of the master, whatever that has become
    const at::Tensor y = at::empty_like(on_grid[0].working);
    ops.fake_quantize(q8_0.fit, q8_0.rounding, on_grid[0].master, y);
    return {y};
  };
  const Work theirs = [=]() mutable -> Tensors {
    at::_fused_adamw_(all.p, all.g, all.m, all.v, {}, all.steps, 1e-3, 0.9, 0.95, 0.1, 1e-8, false, false);
    return {all.p[0]};
  };
  const Work rounded = [=]() -> Tensors { return {copied[0].master.to(at::kBFloat16)}; };
  const at::Tensor loss = at::ones({1}, place.options(at::kDouble));
  const std::vector<int64_t> of_block(static_cast<size_t>(tensors),
                                      (n + kernels::cuda::kAdamChunk - 1) / kernels::cuda::kAdamChunk);
  return {{"AdamW", shape, 28 * count, update(plain), moved, 0x1p-16, theirs, kUpdate},
          {"AdamW and its bf16 copy", shape, 30 * count, update(copied), rounded, 0, {}, kUpdate},
          {"AdamW and its copy on q8_0", shape, 30 * count, update(on_grid), fitted, 0, {}, kUpdate},
          {"norm and verdict", shape, 4 * count,
           [=, &ops]() -> Tensors {
             return {ops.judge(ops.squares(all.g), of_block, loss, 1.0).narrow(0, 0, 1)};
           },
           [=]() -> Tensors {
             at::Tensor sum = at::zeros({1}, place.options(at::kDouble));
             for (const at::Tensor& one : all.g) sum += one.to(at::kDouble).square().sum();
             return {sum.sqrt()};
           },
           1e-12}};
}

}  // namespace

std::vector<Rows> kernel_rows() {
  return {rms_norms, layer_norms, gates, ropes, embeddings, sums, losses, losses_alone, updates};
}

}  // namespace retort::bench
