// AdamW over a 7M-parameter byte model against LibTorch's fused one. Checks both against f64, then times.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <fmt/core.h>

#include <cmath>

#include "bench/paired.h"
#include "core/error.h"
#include "core/random.h"
#include "models/decoder.h"
#include "train/optimizer.h"

namespace {

using namespace retort;

constexpr double kLr = 1e-3;

struct Peer {
  std::vector<at::Tensor> p, m, v, steps;
  void step(const std::vector<at::Tensor>& gradients, const train::OptimizerOptions& o) {
    for (at::Tensor& t : steps) t.add_(1);
    at::_fused_adamw_(p, gradients, m, v, {}, steps, kLr, o.beta1, o.beta2, o.weight_decay, o.eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  }
};

// The largest error of the first parameter after one step, relative to its largest element.
double error_of(const at::Tensor& after, const at::Tensor& before, const at::Tensor& gradient,
                const train::OptimizerOptions& o) {
  const at::Tensor g = gradient.to(at::kDouble);
  const at::Tensor expected =
      before.to(at::kDouble) * (1 - kLr * o.weight_decay) - kLr * g / (g.abs() + o.eps);
  return ((after.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

}  // namespace

int main() {
  const at::NoGradGuard no_grad;
  models::Decoder model(
      {.layers = 9, .width = 256, .heads = 4, .kv_heads = 4, .head_dim = 64, .ffn_width = 704});
  models::Parameters& parameters = model.parameters();
  models::initialise(parameters, "gpt2", 0.02, 1);
  train::OptimizerOptions options;
  options.decay_all = true;
  const auto ours = train::make_optimizer(options, parameters);
  Peer peer;
  std::vector<at::Tensor> gradients;
  for (const models::Parameter& p : parameters.unique()) {
    gradients.push_back(at::empty_like(p.master));
    Random(2, p.name).fill_normal(gradients.back(), 0.01);
    peer.p.push_back(p.master.clone());
    peer.m.push_back(at::zeros_like(p.master));
    peer.v.push_back(at::zeros_like(p.master));
    peer.steps.push_back(at::zeros({}));
  }
  const at::Tensor before = parameters.unique()[0].master.clone();
  ours->step(parameters, gradients, kLr);
  peer.step(gradients, options);
  const double our_error = error_of(parameters.unique()[0].master, before, gradients[0], options);
  const double peer_error = error_of(peer.p[0], before, gradients[0], options);
  check<InternalError>(our_error <= 2 * peer_error + std::ldexp(1.0, -24),
                       "[bench_optimizer] error {:.2e}, the peer's {:.2e}", our_error, peer_error);

  const bench::Paired times = bench::time_pairs([&] { ours->step(parameters, gradients, kLr); },
                                                [&] { peer.step(gradients, options); }, 41);
  const auto count = static_cast<double>(parameters.stored());
  fmt::print(
      "adamw: {:.2f}M parameters, {} threads; ours {:.2f} ms ({:.2f} ns a parameter), LibTorch {:.2f} ms\n",
      count / 1e6, at::get_num_threads(), times.ours.wall_ms, times.ours.wall_ms * 1e6 / count,
      times.peer.wall_ms);
  fmt::print("ours / LibTorch: wall {:.3f} [{:.3f}-{:.3f}], cpu {:.3f} [{:.3f}-{:.3f}]\n", times.wall.median,
             times.wall.low, times.wall.high, times.cpu.median, times.cpu.low, times.cpu.high);
  fmt::print("error against f64: ours {:.2e}, LibTorch {:.2e}\n", our_error, peer_error);
}
