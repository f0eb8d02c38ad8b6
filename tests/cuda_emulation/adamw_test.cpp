// The device's AdamW against kernels/adamw.h and gradient_norm.h, bit for bit.
#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include "tests/cuda_emulation/providers.h"
#include "tests/kernels/block_squares.h"

namespace retort::testing {
namespace {

using kernels::cuda::AdamOptions;
using kernels::cuda::AdamW;
using kernels::cuda::Ops;

// Sizes around a run, a block's part and a chunk.
struct Shape {
  int64_t rows, columns;
  bool decays, working;
};
const std::vector<Shape> kShapes = {{300, 31, true, true},
                                    {64, 64, true, true},
                                    {1, 8, false, false},
                                    {1, 4097, false, true},
                                    {1, 1, false, true}};

constexpr double kClip = 3.0, kDecay = 0.1;
constexpr int kSteps = 4, kBroken = 2;  // the step whose gradients are not finite

AdamOptions options_of(int step) {
  return {.lr = 1e-2 / (step + 1),
          .beta1 = 0.9,
          .beta2 = 0.95,
          .eps = 1e-8,
          .weight_decay = kDecay,
          .clip = kClip};
}
Tensors values(uint64_t seed, double std) {
  Tensors out;
  for (const Shape& s : kShapes) out.push_back(normal({s.rows, s.columns}, ++seed, std).to(at::kFloat));
  return out;
}
Tensors gradients_of(int step) { return values(100 + 10 * static_cast<uint64_t>(step), 0.1); }

// What training on the CPU does: a step that is not finite is left out. Norms, then p, m and v of each.
Tensors on_cpu() {
  std::vector<kernels::AdamwTensor> tensors;
  for (const at::Tensor& p : values(0, 0.5))
    tensors.push_back({p,
                       at::zeros_like(p),
                       at::zeros_like(p),
                       {},
                       {0, p.size(0), p.size(0)},
                       kShapes[tensors.size()].decays ? kDecay : 0.0});
  Tensors norms;
  int64_t t = 0;
  for (int step = 0; step < kSteps; ++step) {
    if (step == kBroken) continue;
    Tensors gradients = gradients_of(step);
    std::vector<kernels::BlockedGradient> blocked;
    for (size_t i = 0; i < gradients.size(); ++i) blocked.push_back({gradients[i], tensors[i].blocks});
    const double norm = kernels::norm_of(kernels::block_squares(blocked));
    norms.push_back(at::scalar_tensor(norm, at::kDouble));
    kernels::clip_gradients(blocked, norm, kClip);
    for (size_t i = 0; i < gradients.size(); ++i) tensors[i].gradient = gradients[i];
    const AdamOptions o = options_of(step);
    kernels::adamw(tensors, {.lr = o.lr, .beta1 = o.beta1, .beta2 = o.beta2, .eps = o.eps, .t = ++t});
  }
  Tensors out{at::stack(norms)};
  for (const kernels::AdamwTensor& x : tensors) out.insert(out.end(), {x.p, x.m, x.v});
  return out;
}

// Norms, p, m and v of each, the figures, and the working copies.
Tensors on_device(const Ops& ops, const at::Device& device, bool squares_given) {
  std::vector<AdamW::Parameter> parameters;
  for (const at::Tensor& value : values(0, 0.5)) {
    const Shape& shape = kShapes[parameters.size()];
    const at::Tensor p = placed(value, device);
    parameters.push_back({p, at::zeros_like(p), at::zeros_like(p), at::zeros_like(p),
                          shape.working ? at::zeros_like(p, at::kBFloat16) : at::Tensor(), shape.decays});
  }
  AdamW optimizer(ops, parameters);
  Tensors norms;
  for (int step = 0; step < kSteps; ++step) {
    const Tensors gradients = gradients_of(step);
    at::Tensor squares = at::zeros({1}, at::TensorOptions(device).dtype(at::kDouble));
    for (size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].gradient.copy_(gradients[i]);
      if (step == kBroken && i == 3) parameters[i].gradient[0][77] = INFINITY;
      squares.add_(parameters[i].gradient.to(at::kDouble).square().sum());
    }
    optimizer.step(options_of(step), squares_given ? squares : at::Tensor());
    if (step != kBroken) norms.push_back(optimizer.figures()[0].clone());
  }
  Tensors out{at::stack(norms)};
  for (const AdamW::Parameter& p : parameters) out.insert(out.end(), {p.master, p.m, p.v});
  out.push_back(optimizer.figures().clone());
  for (const AdamW::Parameter& p : parameters)
    if (p.working.defined()) out.push_back(p.working);
  return out;
}

TEST(CudaAdamW, MakesTheBitsOfTheCpu) {
  const Tensors want = on_cpu();
  ASSERT_GT(want[0].max().item<double>(), kClip) << "clipping must be tried";
  for (const bool squares_given : {false, true})
    everywhere(
        "adamw",
        [&](const Ops& ops, const at::Device& device) { return on_device(ops, device, squares_given); },
        [&](const Tensors& got) {
          EXPECT_LE(relative_error(got[0], want[0]), 1e-14);
          for (size_t i = 1; i < want.size(); ++i) EXPECT_TRUE(same_bits(got[i], want[i])) << i;
          const at::Tensor figures = got[want.size()];
          EXPECT_EQ(figures[1].item<double>(), kSteps - 1) << "steps";
          EXPECT_EQ(figures[2].item<double>(), 1) << "steps left out";
          size_t at = want.size() + 1;
          for (size_t i = 0; i < kShapes.size(); ++i)
            if (kShapes[i].working) {
              EXPECT_TRUE(same_bits(got[at++], want[1 + 3 * i].to(at::kBFloat16))) << i;
            }
        });
}

}  // namespace
}  // namespace retort::testing
