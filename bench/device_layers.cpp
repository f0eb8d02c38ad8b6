// Rows of bench_device: the loss layers whole, forward and backward, with what memory they take, and attention in documents.
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>

#include <cmath>

#include "bench/device_table.h"
#include "kernels/attention.h"
#include "kernels/linear_loss.h"
#include "kernels/reference.h"
#include "kernels/row_losses.h"
#include "tests/process_memory.h"

namespace retort::bench {
namespace {

// Bytes that `work` takes beyond those that are there, at its peak; nothing where the system does not tell.
std::optional<double> peak_of(const Place& place, const std::function<void()>& work) {
  if (place.pretends) {
    if (!testing::reset_peak()) return {};
    return static_cast<double>(testing::peak_growth(work));
  }
  c10::DeviceAllocator& memory = *c10::getDeviceAllocator(place.device.type());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto bytes = [&] { return memory.getDeviceStats(place.device.index()).allocated_bytes[kAll]; };
  memory.resetPeakStats(place.device.index());
  const int64_t before = bytes().current;
  work();
  place.wait();
  return static_cast<double>(bytes().peak - before);
}

// A head of V columns over T rows of the student's D channels, and a teacher's over E.
struct Heads {
  at::Tensor h, w, th, tw, labels;
  Heads(const Place& place, int64_t T, int64_t D, int64_t E, int64_t V)
      : h(place.normal({T, D}).requires_grad_()),
        w((place.normal({V, D}) * 0.02).requires_grad_()),
        labels(place.below(V, {T})) {
    if (E > 0) th = place.normal({T, E}), tw = place.normal({V, E}) * 0.02;
  }
  bool taught() const { return th.defined(); }
  double operations() const {
    const double student = 6 * count_of(h.size(0), h.size(1)),
                 teacher = taught() ? 2 * count_of(h.size(0), th.size(1)) : 0;
    return (student + teacher) * static_cast<double>(w.size(0));
  }

  // The mean loss, half of it forward KL where there is a teacher, and its gradients.
  at::Tensor loss() const {
    const double share = 1.0 / static_cast<double>(h.size(0));
    if (!taught()) return kernels::linear_cross_entropy(h, w, labels) * share;
    return kernels::linear_distill(
               h, w, {.heads = {{th, tw}}}, labels,
               {{kernels::cross_entropy_rows(), 0.5}, {kernels::forward_kl_rows(1.0), 0.5}})
               .sum *
           share;
  }
  Tensors both_ways() const {
    const at::AutoGradMode on(true);
    h.mutable_grad().reset(), w.mutable_grad().reset();
    const at::Tensor value = loss();
    value.backward();
    return {value.detach(), h.grad(), w.grad()};
  }
  Tensors exact() const {
    const at::AutoGradMode on(true);
    const auto leaf = [](const at::Tensor& x) { return x.detach().to(at::kDouble).requires_grad_(); };
    const at::Tensor x = leaf(h), m = leaf(w), logits = at::matmul(x, m.t());
    at::Tensor sum = kernels::reference::cross_entropy(logits, labels);
    if (taught()) {
      const at::Tensor theirs = at::matmul(th.to(at::kDouble), tw.to(at::kDouble).t());
      sum = 0.5 * (sum + kernels::reference::forward_kl(logits, theirs, labels, 1.0));
    }
    const at::Tensor value = sum / static_cast<double>(h.size(0));
    value.backward();
    return {value.detach(), x.grad(), m.grad()};
  }
  // The products alone, in chunks of 2048 rows: logits of both models, and the student's two gradients.
  Work bare_products() const {
    const int64_t T = h.size(0), C = std::min<int64_t>(T, 2048);
    const at::Tensor x = h.detach(), m = w.detach(), logits = at::empty({C, m.size(0)}, m.options()),
                     dx = at::empty_like(x), dm = at::empty_like(m);
    return [=, *this]() -> Tensors {
      for (int64_t begin = 0; begin < T; begin += C) {
        const int64_t end = std::min(begin + C, T);
        at::Tensor z = logits.narrow(0, 0, end - begin), dx_C = dx.slice(0, begin, end), dm_V = dm;
        if (taught()) at::mm_out(z, th.slice(0, begin, end), tw.t());
        at::mm_out(z, x.slice(0, begin, end), m.t());
        at::mm_out(dx_C, z, m);
        at::mm_out(dm_V, z.t(), x.slice(0, begin, end));
      }
      return {dx, dm};
    };
  }
};

// docs/cuda.md has why these shapes. `most`: of the bare products' time.
struct Layer {
  const char* name;
  int64_t teacher_width;
  double most;
};
const Layer kLayers[] = {{"linear and cross-entropy", 0, 1.15},
                         {"linear, forward KL and cross-entropy", 4096, 1.20}};

// Few rows are checked, of the whole vocabulary.
void print_time(Table& table, const Layer& layer) {
  const Place& place = table.place();
  const int64_t T = place.size(8192, 16), D = place.size(2048, 32), V = place.size(128256, 200),
                E = layer.teacher_width > 0 ? place.size(layer.teacher_width, 48) : 0;
  const double error = [&] {
    const Heads few(place, place.size(256, 16), D, E, V);
    const Tensors got = few.both_ways();
    return error_of(got, few.exact());
  }();
  const Heads heads(place, T, D, E, V);
  const Timed timed = time_of(
      place, [&] { return heads.both_ways(); }, heads.bare_products());
  const double rate = 1e3 * heads.operations() / timed.ours;
  table.print({fmt::format("{}, both ways; peer: bare products", layer.name),
               E > 0 ? fmt::format("{} x {}, {} x {}", T, D, E, V) : fmt::format("{} x {} x {}", T, D, V),
               error,
               0x1p-6,
               {},
               timed.ours,
               fmt::format("{:.0f} TFLOP/s", rate * 1e-12),
               rate / table.reached().product,
               timed.ratio(),
               Target{*timed.ratio(), layer.most, false, "bare products"}});
}

// What a layer takes beside the gradient of its rows, at so many tokens and at four times as many.
void print_memory(Table& table, const Layer& layer) {
  const Place& place = table.place();
  const int64_t T = place.size(8192, 32), D = place.size(2048, 16), V = place.size(128256, 200),
                E = layer.teacher_width > 0 ? place.size(layer.teacher_width, 16) : 0;
  const auto taken = [&](int64_t tokens) -> std::optional<double> {
    const Heads heads(place, tokens, D, E, V);
    const auto peak = peak_of(place, [&] { heads.both_ways(); });
    return peak ? std::optional(*peak - static_cast<double>(heads.h.nbytes())) : std::nullopt;
  };
  const auto once = taken(T), four = taken(4 * T);
  Line line{fmt::format("{}, memory at 1 and 4 times the tokens", layer.name),
            fmt::format("{} and {} x {} x {}", T, 4 * T, D, V)};
  if (once && four) {
    line.rate = fmt::format("{:.0f} and {:.0f} MiB", *once * 0x1p-20, *four * 0x1p-20);
    line.target = {*four / *once, 1.05, false, "a quarter of the tokens"};
  }
  table.print(line);
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
void print_attention(Table& table) {
  const Place& place = table.place();
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
  const double error = error_of(row.both_ways(kernels::attention, row_masks.first, at::kBFloat16),
                                row.both_ways(kernels::reference::attention, row_masks.second, at::kDouble));
  const auto [given, masked] = masks(B, T);
  const Attended all(place, B, T, H, G, K);
  const Timed timed = time_of(
      place, [&, given = given] { return all.both_ways(kernels::attention, given, at::kBFloat16); },
      [&, masked = masked] { return all.both_ways(kernels::attention, masked, at::kBFloat16); });
  const at::Tensor lengths = given.lengths.cumulative.cpu().diff().to(at::kDouble);
  const double pairs = (lengths * (lengths + 1) / 2).sum().item<double>(),
               rate = 1e3 * 12 * pairs * count_of(H, K) / timed.ours;
  table.print({"attention in documents, both ways; peer: mask",
               fmt::format("{} x {}, {} x {} heads of {}", B, T, H, G, K),
               error,
               0x1p-5,
               {},
               timed.ours,
               fmt::format("{:.0f} TFLOP/s", rate * 1e-12),
               rate / table.reached().product,
               timed.ratio()});
}

}  // namespace

void print_loss_layers(Table& table) {
  for (const Layer& layer : kLayers) print_time(table, layer), print_memory(table, layer);
  print_attention(table);
}

}  // namespace retort::bench
