// The CUDA kernels on a device: each checked against fp64, then timed beside LibTorch's own or a composite of it, and held
// to what a copy and a product reach in this run. One Markdown table on stdout.
//   bench_device [--pretend]
// --pretend: the emulated kernels of $RETORT_CUDA_PLUGIN on host memory and small shapes, to try the program where there
// is no GPU. Their times mean nothing, and the table says so.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <optional>

#include "bench/paired.h"
#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cuda_ops.h"
#include "kernels/device_rate.h"
#include "kernels/linear_loss.h"
#include "kernels/reference.h"

namespace {

using namespace retort;
using kernels::cuda::Ops;
using Tensors = std::vector<at::Tensor>;
using Work = std::function<Tensors()>;

struct Place {
  at::Device device = at::kCPU;
  bool pretends = false;
  // A size of the device's, or a small one.
  int64_t size(int64_t real, int64_t small) const { return pretends ? small : real; }
  at::TensorOptions options(at::ScalarType dtype = at::kBFloat16) const {
    return at::TensorOptions(device).dtype(dtype);
  }
  at::Tensor normal(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) const {
    return at::randn(shape, options(at::kFloat)).to(dtype);
  }
  void wait() const { kernels::wait_for(device); }
};

// What one run of a kernel takes, in ms: medians of rounds of launches, of ours and of the peer in turns.
struct Timed {
  double ours = 0;
  std::optional<double> peer;
};
Timed time_of(const Place& place, const Work& ours, const Work& peer) {
  const int launches = place.pretends ? 1 : 20, rounds = place.pretends ? 2 : 9;
  const auto round = [&](const Work& work) {
    return [&place, work, launches] {
      for (int i = 0; i < launches; ++i) work();
      place.wait();
    };
  };
  const bench::Paired times = bench::time_pairs(round(ours), round(peer ? peer : ours), rounds);
  const auto one = [&](const bench::Times& all) { return all.wall_ms / launches; };
  Timed out{one(times.ours), {}};
  if (peer) out.peer = one(times.peer);
  return out;
}

// Largest error of all results, each relative to its largest element; NaN is infinite.
double error_of(const Tensors& got, const Tensors& exact) {
  RETORT_ASSERT(got.size() == exact.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const at::Tensor want = exact[i].to(at::kDouble);
    const double scale = std::max(want.abs().max().item<double>(), 1e-30);
    const double e = (got[i].to(at::kDouble) - want).abs().max().item<double>() / scale;
    worst = std::isnan(e) ? INFINITY : std::max(worst, e);
  }
  return worst;
}

struct Row {
  std::string name, shape;
  double bytes = 0;  // that must move
  Work ours, exact;  // exact: in fp64, of what ours gives
  double allowed;    // error
  Work peer = {};
};

// What this run reaches: bytes a second of a copy, operations a second of a product in bf16.
struct Ceilings {
  double copy = 0, product = 0;
};
Ceilings ceilings_of(const Place& place) {
  const at::Tensor from = at::empty({place.size(int64_t{1} << 31, 1 << 16)}, place.options()),
                   to = from.clone();
  const double copy = time_of(place, [&]() -> Tensors { return {to.copy_(from)}; }, {}).ours;
  const int64_t n = place.size(8192, 64);
  const at::Tensor a = place.normal({n, n}), b = place.normal({n, n});
  at::Tensor out = at::empty_like(a);
  const double product = time_of(place, [&]() -> Tensors { return {at::mm_out(out, a, b.t())}; }, {}).ours;
  const auto cubed = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  return {2e3 * static_cast<double>(from.nbytes()) / copy, 2e3 * cubed / product};
}

double count_of(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

std::vector<Row> norms_and_gates(const Ops& ops, const Place& place) {
  const int64_t N = place.size(16384, 6), D = place.size(2048, 64), F = place.size(5632, 96);
  const at::Tensor x = place.normal({N, D}), w = place.normal({D}, at::kFloat), dy = place.normal({N, D});
  const at::Tensor a = place.normal({N, F}), u = place.normal({N, F}), dg = place.normal({N, F});
  const auto normed = [=](const at::Tensor& z) {
    return z * at::rsqrt(z.square().mean(-1, true) + 1e-5) * w.to(z.scalar_type());
  };
  const at::Tensor rstd = ops.rms_norm(x, w, 1e-5).second;
  const auto backward_in = [=](at::ScalarType dtype) -> Tensors {  // of the formula, by hand
    const at::Tensor z = x.to(dtype), g = dy.to(dtype) * w.to(dtype),
                     r = at::rsqrt(z.square().mean(-1, true) + 1e-5), n = z * r;
    return {r * (g - n * (g * n).mean(-1, true)), (dy.to(dtype) * n).sum(0)};
  };
  const auto gated = [=](at::ScalarType dtype) { return at::silu(a.to(dtype)) * u.to(dtype); };
  const auto gate_backward_in = [=](at::ScalarType dtype) -> Tensors {
    const at::Tensor p = a.to(dtype), s = at::sigmoid(p), g = dg.to(dtype);
    return {g * u.to(dtype) * s * (1 + p * (1 - s)), g * p * s};
  };
  const auto pair = [](const std::pair<at::Tensor, at::Tensor>& two) -> Tensors {
    return {two.first, two.second};
  };
  const std::string nd = fmt::format("{} x {}", N, D), nf = fmt::format("{} x {}", N, F);
  return {
      {"RMS norm", nd, 4 * count_of(N, D),
       [=, &ops]() -> Tensors { return {ops.rms_norm(x, w, 1e-5).first}; },
       [=]() -> Tensors { return {normed(x.to(at::kDouble))}; }, 0x1p-7,
       [=]() -> Tensors { return {normed(x)}; }},
      {"RMS norm, backward", nd, 6 * count_of(N, D),
       [=, &ops] { return pair(ops.rms_norm_backward(dy, x, w, rstd)); },
       [=] { return backward_in(at::kDouble); }, 0x1p-6, [=] { return backward_in(at::kBFloat16); }},
      {"SwiGLU", nf, 6 * count_of(N, F),
       [=, &ops]() -> Tensors { return {ops.gate(kernels::Gate::kSilu, a, u)}; },
       [=]() -> Tensors { return {gated(at::kDouble)}; }, 0x1p-7,
       [=]() -> Tensors { return {gated(at::kBFloat16)}; }},
      {"SwiGLU, backward", nf, 10 * count_of(N, F),
       [=, &ops] { return pair(ops.gate_backward(kernels::Gate::kSilu, dg, a, u)); },
       [=] { return gate_backward_in(at::kDouble); }, 0x1p-7,
       [=] { return gate_backward_in(at::kBFloat16); }},
  };
}

// Loss and gradient in place of the logits, which a check takes from a copy; runs after it go on from what is there.
std::vector<Row> losses(const Ops& ops, const Place& place) {
  const int64_t C = place.size(2048, 4), V = place.size(128256, 300);
  const at::Tensor start = place.normal({C, V}), teacher = place.normal({C, V});
  const at::Tensor labels = at::randint(V, {C}, place.options(at::kLong));
  const auto logits = std::make_shared<at::Tensor>(start.clone());
  using kernels::cuda::RowLoss;
  using Terms = std::vector<kernels::cuda::RowLossTerm>;
  const auto ours = [=, &ops](const Terms& terms) {
    return [=, &ops]() -> Tensors {
      ops.row_losses(*logits, teacher, V, labels, terms, true);
      return {*logits};
    };
  };
  // The gradient of cross-entropy, and of forward and reverse KL, as eager LibTorch would have it.
  const auto composite = [=](double forward, double reverse) {
    return [=](at::ScalarType dtype) -> Tensors {
      const at::Tensor log_q = at::log_softmax(start.to(dtype), -1), q = log_q.exp();
      at::Tensor g = (q - at::one_hot(labels, V).to(dtype)) * (1 - forward - reverse);
      if (forward + reverse == 0) return {g};
      const at::Tensor log_p = at::log_softmax(teacher.to(dtype), -1), pull = q * (log_q - log_p);
      return {g + (q - log_p.exp()) * forward + (pull - q * pull.sum(-1, true)) * reverse};
    };
  };
  const auto row = [&](const char* name, double bytes, double forward, double reverse) {
    Terms terms{{RowLoss::kCrossEntropy, 1 - forward - reverse}};
    if (forward > 0) terms.push_back({RowLoss::kForwardKl, forward});
    if (reverse > 0) terms.push_back({RowLoss::kReverseKl, reverse});
    const auto plain = composite(forward, reverse);
    return Row{name,
               fmt::format("{} x {}", C, V),
               bytes * count_of(C, V),
               [=, work = ours(terms)] {
                 if (place.pretends || !logits->defined()) logits->copy_(start);
                 return work();
               },
               [=] { return plain(at::kDouble); },
               0x1p-7,
               [=] { return plain(at::kFloat); }};
  };
  return {row("cross-entropy, in place", 4, 0.0, 0.0),
          row("forward KL and cross-entropy, in place", 6, 0.5, 0.0),
          row("forward KL, reverse KL and cross-entropy, in place", 6, 0.5, 0.25)};
}

std::vector<Row> updates(const Ops& ops, const Place& place) {
  const int64_t tensors = place.size(148, 3), n = place.size(838000, 5000);
  std::vector<Ops::AdamParameter> parameters;
  Tensors p, m, v, g, steps;
  for (int64_t i = 0; i < tensors; ++i) {
    const auto f32 = place.options(at::kFloat);
    g.push_back(at::randn({n}, f32) * 0.01);
    parameters.push_back(
        {at::randn({n}, f32), at::zeros({n}, f32), at::zeros({n}, f32), g.back(), {}, 0.9999f});
    p.push_back(parameters.back().master.clone()), m.push_back(at::zeros({n}, f32));
    v.push_back(at::zeros({n}, f32)), steps.push_back(at::zeros({}, f32));
  }
  const kernels::cuda::AdamRates rates{0.9f, 0.1f, 0.95f, 0.05f, 1e-3f / 0.1f, 1 / std::sqrt(0.05f), 1e-8f};
  const at::Tensor verdict = at::ones({3}, place.options(at::kDouble)), before = p[0].clone(), first = g[0];
  const std::string shape = fmt::format("{} of {}", tensors, n);
  const double count = count_of(tensors, n);
  const std::vector<int64_t> of_block(static_cast<size_t>(tensors),
                                      (n + kernels::cuda::kAdamChunk - 1) / kernels::cuda::kAdamChunk);
  const at::Tensor loss = at::ones({1}, place.options(at::kDouble));
  return {
      {"AdamW", shape, 28 * count,
       [=, &ops]() -> Tensors {
         ops.adamw(parameters, rates, verdict);
         return {parameters[0].master};
       },
       [=]() -> Tensors {  // of the first step: each weight moves by lr towards its gradient's sign
         const at::Tensor d = first.to(at::kDouble);
         return {before.to(at::kDouble) * 0.9999 - 1e-3 * d / (d.abs() + 1e-8)};
       },
       0x1p-16,
       [=]() mutable -> Tensors {
         at::_fused_adamw_(p, g, m, v, {}, steps, 1e-3, 0.9, 0.95, 0.1, 1e-8, false, false);
         return {p[0]};
       }},
      {"norm and verdict", shape, 4 * count,
       [=, &ops]() -> Tensors { return {ops.judge(ops.squares(g), of_block, loss, 1.0).narrow(0, 0, 1)}; },
       [=]() -> Tensors {
         at::Tensor sum = at::zeros({1}, place.options(at::kDouble));
         for (const at::Tensor& one : g) sum += one.to(at::kDouble).square().sum();
         return {sum.sqrt()};
       },
       1e-12}};
}

// Values on grids in bf16, and a learned grid's gradient; the check is the composite in f32, each operation of which
// rounds as the kernel's does.
std::vector<Row> grids(const Ops& ops, const Place& place) {
  using kernels::Fit, kernels::RoundRule;
  const int64_t N = place.size(14336, 3), D = place.size(4096, 256);
  const at::Tensor x = place.normal({N, D}, at::kFloat) * 0.02, g = place.normal({N, D}, at::kFloat);
  const at::Tensor theta = x.abs().mean(-1, true).mul(0.42).log(), given = ops.learned_scales(theta);
  const kernels::Rounding four{RoundRule::kNearestEven, -8, 7}, eight{RoundRule::kNearestEven, -128, 127},
      three{RoundRule::kNearestEven, -1, 1};
  const auto under = [=](const at::Tensor& s, int64_t group, const kernels::Rounding& r) -> Tensors {
    const at::Tensor v = x.view({N, -1, group}) / s.unsqueeze(-1);
    return {(v.round().clamp(r.lowest, r.highest) * s.unsqueeze(-1)).to(at::kBFloat16).view({N, D})};
  };
  const auto integers = [=](int64_t group, double half_range, const kernels::Rounding& r) {
    return [=]() -> Tensors {  // divided by a tensor: LibTorch multiplies by a number's inverse
      const at::Tensor peak = x.view({N, -1, group}).abs().amax(-1), half = at::full_like(peak, half_range);
      return under((peak / half).to(at::kHalf).to(at::kFloat).clamp_min(0x1p-24), group, r);
    };
  };
  const auto values = [=, &ops](const kernels::ScaleFit& fit, const kernels::Rounding& r) {
    return [=, &ops]() -> Tensors {
      const at::Tensor y = at::empty_like(x, at::kBFloat16);
      ops.fake_quantize(fit, r, x, y);
      return {y};
    };
  };
  const Work rows_given = [=, &ops]() -> Tensors {
    const at::Tensor y = at::empty_like(x, at::kBFloat16);
    ops.fake_quantize_rows(four, x, given, y);
    return {y};
  };
  const Work backward = [=]() -> Tensors {
    const at::Tensor y = (x / given).round().clamp(-8, 7) * given;
    const at::Tensor inside = (x >= -8 * given).logical_and(x <= 7 * given).to(at::kFloat);
    return {g * inside, (g * (y - inside * x)).to(at::kDouble).sum(-1, true)};
  };
  const std::string shape = fmt::format("{} x {}", N, D);
  const double count = count_of(N, D);
  return {
      {"int4 grid, groups of 32", shape, 6 * count, values({Fit::kInteger, 32, 7.5}, four),
       integers(32, 7.5, four), 0, integers(32, 7.5, four)},
      {"int8 grid, rows", shape, 6 * count, values({Fit::kInteger, 0, 127.5}, eight),
       integers(D, 127.5, eight), 0, integers(D, 127.5, eight)},
      {"rows' means", shape, 4 * count, [=, &ops]() -> Tensors { return {ops.row_scales(Fit::kMean, x)}; },
       [=]() -> Tensors { return {x.to(at::kDouble).abs().mean(-1, true)}; }, 0x1p-10},
      {"ternary grid of a tensor", shape, 10 * count, values({Fit::kMeanOfAll}, three),
       [=, &ops] { return under(ops.row_scales(Fit::kMeanOfAll, x), D, three); }, 0},
      {"learned 4-bit grid", shape, 6 * count, rows_given, [=] { return under(given, D, four); }, 0,
       [=] { return under(given, D, four); }},
      {"learned 4-bit grid, backward", shape, 12 * count,
       [=, &ops]() -> Tensors {
         const at::Tensor out = at::empty_like(g);
         return {out, ops.round_backward(x, given, g, {four, -8, 7, true}, out)};
       },
       backward, 1e-4, backward}};
}

// Values of a frozen base's codes in bf16, exact ones by LibTorch in f32.
std::vector<Row> codes(const Ops& ops, const Place& place) {
  using kernels::PackedForm;
  const int64_t n = place.size(int64_t{14336} * 4096, 4096), N = n / 256;
  const auto bytes = place.options(at::kByte);
  const at::Tensor eight = at::randint(256, {n}, bytes), four = at::randint(256, {n / 2}, bytes),
                   scales = (at::rand({n / 32}, place.options(at::kFloat)) * 0.01).to(at::kHalf),
                   places = at::randint(256, {n / 64}, bytes),
                   groups = at::rand({(n / 64 + 255) / 256}, place.options(at::kFloat)),
                   sizes = at::linspace(-1, 1, 256, place.options(at::kFloat)),
                   map = at::linspace(-1, 1, 16, place.options(at::kFloat));
  const auto in_blocks = [=](const at::Tensor& values) -> Tensors {  // [n / 32, 32], of scales
    return {(values.to(at::kFloat) * scales.to(at::kFloat).unsqueeze(1)).to(at::kBFloat16).view({N, 256})};
  };
  const Work q8_0 = [=] { return in_blocks(eight.view(at::kChar).view({-1, 32})); };
  const at::Tensor low = at::bitwise_and(four, 15), high = at::bitwise_right_shift(four, 4);
  const Work q4_0 = [=] {
    return in_blocks(at::cat({low.view({-1, 16}), high.view({-1, 16})}, 1).to(at::kChar) - 8);
  };
  const Work nf4 = [=]() -> Tensors {
    const at::Tensor group = groups.repeat_interleave(256).slice(0, 0, n / 64);
    const at::Tensor size = sizes.index({places.to(at::kLong)}) * group + 0.5;
    const at::Tensor values = map.index({at::stack({high, low}, 1).to(at::kLong)}).view({-1, 64});
    return {(values * size.unsqueeze(1)).to(at::kBFloat16).view({N, 256})};
  };
  const auto row = [&](const char* name, double of_value, kernels::PackedCodes packed, Work exact) {
    return Row{name,
               fmt::format("{} x 256", N),
               of_value * static_cast<double>(n),
               [=, &ops]() -> Tensors {
                 const at::Tensor y = at::empty({N, 256}, place.options());
                 ops.unpack(packed, y);
                 return {y};
               },
               exact,
               0,
               exact};
  };
  return {row("values of q8_0 codes", 3.0625, {PackedForm::kQ8_0, eight, scales}, q8_0),
          row("values of q4_0 codes", 2.5625, {PackedForm::kQ4_0, four, scales}, q4_0),
          row("values of nf4 codes", 2.516, {PackedForm::kNf4, four, places, groups, sizes, map, 0.5f}, nf4)};
}

// The loss layer whole, forward and backward, in the time of its three products alone.
void print_loss_layer(const Place& place, const Ceilings& reached) {
  const int64_t T = place.size(8192, 16), D = place.size(2048, 32), V = place.size(128256, 200);
  const at::Tensor h = place.normal({T, D}).requires_grad_(),
                   w = (place.normal({V, D}) * 0.02).requires_grad_();
  const at::Tensor labels = at::randint(V, {T}, place.options(at::kLong));
  const auto work = [&]() -> Tensors {
    const at::AutoGradMode on(true);
    h.mutable_grad().reset(), w.mutable_grad().reset();
    const at::Tensor loss = kernels::linear_cross_entropy(h, {w}, labels);
    loss.backward();
    return {loss.detach()};
  };
  const double ms = time_of(place, work, {}).ours;
  const double products = 6 * count_of(T, D) * static_cast<double>(V),
               floor = 1e3 * products / reached.product;
  fmt::print(
      "| linear and cross-entropy, both ways | {} x {} x {} | - | {:.3f} | {:.0f} TFLOP/s | {:.0f} % | - |\n",
      T, D, V, ms, products / ms * 1e-9, 100 * floor / ms);
}

// Value and gradients of attention, whichever way it goes.
struct Attended {
  at::Tensor q, k, v, dy;
  double scale;
  Attended(const Place& place, int64_t B, int64_t T, int64_t H, int64_t G, int64_t K)
      : q(place.normal({B, T, H, K}).requires_grad_()),
        k(place.normal({B, T, G, K}).requires_grad_()),
        v(place.normal({B, T, G, K}).requires_grad_()),
        dy(place.normal({B, T, H, K})),
        scale(1 / std::sqrt(static_cast<double>(K))) {}
  template <class Attention>
  Tensors both_ways(Attention attention, const kernels::AttentionMask& mask, at::ScalarType dtype) const {
    const at::AutoGradMode on(true);
    Tensors leaves;
    for (const at::Tensor& x : {q, k, v}) leaves.push_back(x.detach().to(dtype).requires_grad_());
    const at::Tensor y = attention(leaves[0], leaves[1], leaves[2], mask, scale);
    y.backward(dy.to(dtype));
    return {y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
  }
};

// Attention over packed documents, forward and backward: given their lengths, and given a mask. Only pairs of tokens that
// see each other count as operations. One short row is checked.
bool print_attention(const Place& place, const Ceilings& reached) {
  const int64_t B = place.size(4, 1), T = place.size(4096, 48), H = place.size(16, 4), G = H / 4,
                K = place.size(128, 16);
  const auto masks = [&](int64_t rows, int64_t tokens) {
    const at::Tensor t = at::arange(tokens, at::kLong);
    const at::Tensor number_BT =
        t.square().floor_divide(tokens * tokens / 8).expand({rows, tokens}).contiguous();
    kernels::AttentionMask given{0, number_BT.to(place.device), document_lengths(number_BT)};
    given.lengths.cumulative = given.lengths.cumulative.to(place.device);
    return std::pair{given, kernels::AttentionMask{0, given.document_BS}};
  };
  const int64_t few = place.size(512, 32);
  const auto row_masks = masks(1, few);
  const Attended row(place, 1, few, H, G, K);
  const double allowed = 0x1p-5,
               error = error_of(row.both_ways(kernels::attention, row_masks.first, at::kBFloat16),
                                row.both_ways(kernels::reference::attention, row_masks.second, at::kDouble));
  const auto [given, masked] = masks(B, T);
  const Attended all(place, B, T, H, G, K);
  const Timed timed = time_of(
      place, [&, given = given] { return all.both_ways(kernels::attention, given, at::kBFloat16); },
      [&, masked = masked] { return all.both_ways(kernels::attention, masked, at::kBFloat16); });
  const at::Tensor lengths = given.lengths.cumulative.cpu().diff().to(at::kDouble);
  const double pairs = (lengths * (lengths + 1) / 2).sum().item<double>();
  const double operations = 12 * pairs * count_of(H, K), floor = 1e3 * operations / reached.product;
  fmt::print(
      "| attention in documents, both ways; peer: mask | {} x {}, {} x {} heads of {} | {:.1e}{} | {:.3f} | "
      "{:.0f} TFLOP/s | {:.0f} % | {:.2f} |\n",
      B, T, H, G, K, error, error <= allowed ? "" : " WRONG", timed.ours, operations / timed.ours * 1e-9,
      100 * floor / timed.ours, timed.ours / *timed.peer);
  return error <= allowed;
}

int run(bool pretends) {
  const std::string why = kernels::cuda::load();
  check<ConfigError>(why.empty(), "[bench_device] {}", why);
  const Place place{pretends ? at::Device(at::kCPU) : at::Device(at::kCUDA, 0), pretends};
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  const Ops& ops = kernels::cuda::device_ops();
  const Ceilings reached = ceilings_of(place);
  fmt::print("{} kernels{}; this run's ceilings: copy {:.2f} TB/s, bf16 product {:.0f} TFLOP/s\n\n",
             ops.table().name, pretends ? ", pretended: the times mean nothing" : "", reached.copy * 1e-12,
             reached.product * 1e-12);
  fmt::print(
      "| kernel | shape | error | ms | rate | of the ceiling | ours / LibTorch "
      "|\n|---|---|---|---|---|---|---|\n");
  int wrong = 0;
  for (const auto& group : {norms_and_gates, losses, updates, grids, codes})
    for (const Row& row : group(ops, place)) {
      const double error = error_of(row.ours(), row.exact());
      const Timed timed = time_of(place, row.ours, row.peer);
      const double rate = 1e3 * row.bytes / timed.ours;
      wrong += error <= row.allowed ? 0 : 1;
      fmt::print("| {} | {} | {:.1e}{} | {:.3f} | {:.0f} GB/s | {:.0f} % | {} |\n", row.name, row.shape,
                 error, error <= row.allowed ? "" : " WRONG", timed.ours, rate * 1e-9,
                 100 * rate / reached.copy,
                 timed.peer ? fmt::format("{:.2f}", timed.ours / *timed.peer) : "-");
      std::fflush(stdout);
    }
  wrong += print_attention(place, reached) ? 0 : 1;
  print_loss_layer(place, reached);
  return wrong == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count > 1 && std::strcmp(arguments[1], "--pretend") == 0);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
