// The device's AdamW against kernels/adamw.h and gradient_norm.h, bit for bit.
#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "kernels/gradient_norm.h"
#include "quantize/device_fit.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

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

constexpr kernels::AdamwStep kStep = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .t = 0};

Tensors values(uint64_t seed, double std) {
  Tensors out;
  for (const Shape& s : kShapes) out.push_back(normal({s.rows, s.columns}, ++seed, std).to(at::kFloat));
  return out;
}
Tensors gradients_of(int step) {
  Tensors out = values(100 + 10 * static_cast<uint64_t>(step), 0.1);
  if (step == kBroken) out[3][0][77] = INFINITY;
  return out;
}

// What a step does with gradients: the verdict on each step, then p, m and v of each parameter, and the working copies.
Tensors on_cpu() {
  std::vector<kernels::AdamwTensor> tensors;
  for (const at::Tensor& p : values(0, 0.5))
    tensors.push_back({p,
                       at::zeros_like(p),
                       at::zeros_like(p),
                       {},
                       {0, p.size(0), p.size(0)},
                       kShapes[tensors.size()].decays ? kDecay : 0.0});
  Tensors verdicts;
  kernels::AdamwStep rates = kStep;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<kernels::BlockedGradient> blocked;
    for (size_t i = 0; const at::Tensor& g : gradients_of(step)) {
      tensors[i].gradient = g;
      blocked.push_back({g, tensors[i++].blocks});
    }
    verdicts.push_back(kernels::judge(kernels::squares_of(blocked), at::ones({2}, at::kDouble), kClip));
    ++rates.t;
    kernels::adamw(tensors, rates, verdicts.back());
    if (step == kBroken) --rates.t;
  }
  Tensors out{at::stack(verdicts)};
  for (const kernels::AdamwTensor& x : tensors) out.insert(out.end(), {x.p, x.m, x.v});
  for (size_t i = 0; i < kShapes.size(); ++i)
    if (kShapes[i].working) out.push_back(tensors[i].p.to(at::kBFloat16));
  return out;
}

// The rates of a step, as kernels/adamw.cpp finds them.
kernels::cuda::AdamRates rates_of(int64_t t) {
  const auto f = [](double x) { return static_cast<float>(x); };
  const auto steps = static_cast<double>(t);
  return {f(kStep.beta1),
          f(1 - kStep.beta1),
          f(kStep.beta2),
          f(1 - kStep.beta2),
          f(kStep.lr / (1 - std::pow(kStep.beta1, steps))),
          f(1 / std::sqrt(1 - std::pow(kStep.beta2, steps))),
          f(kStep.eps)};
}

// `offset`: of the gradients in memory, so that runs of eight do not meet 16 bytes.
Tensors on_device(const Ops& ops, const at::Device& device, int64_t offset) {
  std::vector<Ops::AdamParameter> parameters;
  for (const at::Tensor& value : values(0, 0.5)) {
    const Shape& shape = kShapes[parameters.size()];
    const at::Tensor p = placed(value, device);
    parameters.push_back({p,
                          at::zeros_like(p),
                          at::zeros_like(p),
                          {},
                          shape.working ? at::zeros_like(p, at::kBFloat16) : at::Tensor(),
                          static_cast<float>(1.0 - kStep.lr * (shape.decays ? kDecay : 0.0))});
  }
  Tensors verdicts;
  int64_t t = 0;
  for (int step = 0; step < kSteps; ++step) {
    Tensors gradients;
    std::vector<int64_t> of_block;
    for (size_t i = 0; const at::Tensor& g : gradients_of(step)) {
      gradients.push_back(placed(g, device, offset));
      of_block.push_back((g.numel() + kernels::cuda::kAdamChunk - 1) / kernels::cuda::kAdamChunk);
      parameters[i++].gradient = gradients.back();
    }
    const at::Tensor losses = at::ones({2, 3}, at::TensorOptions(device).dtype(at::kDouble)).select(1, 1);
    verdicts.push_back(ops.judge(ops.squares(gradients), of_block, losses, kClip));
    ops.adamw(parameters, rates_of(++t), verdicts.back());
    if (step == kBroken) --t;
  }
  Tensors out{at::stack(verdicts)};
  for (const Ops::AdamParameter& p : parameters) out.insert(out.end(), {p.master, p.m, p.v});
  for (const Ops::AdamParameter& p : parameters)
    if (p.working.defined()) out.push_back(p.working);
  return out;
}

TEST(CudaAdamW, MakesTheBitsOfTheCpu) {
  const Tensors want = on_cpu();
  const at::Tensor clipped = want[0].select(1, 1) < 1.0, goes = want[0].select(1, 2);
  ASSERT_EQ(clipped.sum().item<int64_t>(), kSteps) << "clipping must be tried";
  ASSERT_EQ(goes.sum().item<double>(), kSteps - 1) << "and a step that is left out";
  for (const int64_t offset : {0, 1})
    everywhere(
        fmt::format("adamw, gradients {} off", offset),
        [&](const Ops& ops, const at::Device& device) { return on_device(ops, device, offset); },
        [&](const Tensors& got) {
          ASSERT_EQ(got.size(), want.size());
          for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(same_bits(got[i], want[i])) << i;
        });
}

// --- working copies on grids

// A parameter, the grid of its copy (nullptr: none, cast) and the copy's dtype.
struct Copied {
  const quantize::Grid* grid;
  at::ScalarType dtype;
  at::Tensor p, gradient;
};

// Less than a pass of a block, a few chunks and their end; groups of zeros, of equal extremes, with a scale too large
// for a half and too small.
std::vector<Copied> copied() {
  std::vector<Copied> out;
  const auto add = [&](const quantize::Grid* grid, at::ScalarType dtype) {
    for (const int64_t rows : {1, 9, 37}) {
      Copied& x = out.emplace_back(grid, dtype, normal({rows, 256}, 10 + out.size(), 0.05).to(at::kFloat),
                                   normal({rows, 256}, 500 + out.size(), 0.1).to(at::kFloat));
      at::Tensor p = x.p.view({-1, 32}), g = x.gradient.view({-1, 32});
      p[0].zero_(), g[0].zero_();
      p[1][3] = 2.0f, p[1][9] = -2.0f;
      p[2].mul_(1e7f), p[3].mul_(1e-9f), g[3].zero_();
      p[4].copy_(at::arange(32, at::kFloat) * 0.5f - 8.0f), g[4].zero_();
    }
  };
  for (const quantize::Grid& grid : quantize::grids())
    if (const auto fit = quantize::device_fit(grid); fit && fit->group > 0)
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) add(&grid, dtype);
  add(nullptr, at::kBFloat16);
  return out;
}

// Equal bits; of NaNs, of which a device has others, that they are ones: q4_0's of a scale too large for a half.
bool same_numbers(const at::Tensor& got, const at::Tensor& want) {
  return at::equal(got.isnan(), want.isnan()) && same_bits(got.nan_to_num(0.5), want.nan_to_num(0.5));
}

// One call updates them all: what each copy then holds is what its grid makes of the master on the CPU.
TEST(CudaAdamW, CopiesOnGridsAreTheCpusBits) {
  const std::vector<Copied> given = copied();
  std::set<std::string> names;
  Tensors want;
  for (const Copied& x : given) {
    const at::Tensor p = x.p.clone(), m = at::zeros_like(p), v = at::zeros_like(p),
                     values = at::empty_like(p);
    const kernels::RowBlocks blocks{0, p.size(0), p.size(0)};
    kernels::AdamwStep rates = kStep;
    for (rates.t = 1; rates.t <= 2; ++rates.t)
      kernels::adamw({{p, m, v, x.gradient, blocks, kDecay}}, rates,
                     at::tensor({1.0, 0.5, 1.0}, at::kDouble));
    if (x.grid != nullptr) names.insert(x.grid->name), x.grid->fake_quantize(p, values);
    want.insert(want.end(), {p, m, v, (x.grid == nullptr ? p : values).to(x.dtype)});
  }
  EXPECT_EQ(names, (std::set<std::string>{"q8_0", "q4_0", "q4_1", "int4_g32", "int4_g128"}));
  for (const int64_t offset : {0, 1})
    everywhere(
        fmt::format("adamw on grids, gradients {} off", offset),
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          std::vector<Ops::AdamParameter> parameters;
          for (const Copied& x : given) {
            const at::Tensor p = placed(x.p, device);
            Ops::AdamParameter& one = parameters.emplace_back(Ops::AdamParameter{
                p, at::zeros_like(p), at::zeros_like(p), placed(x.gradient, device, offset),
                at::full_like(p, 7, x.dtype), static_cast<float>(1.0 - kStep.lr * kDecay)});
            if (x.grid != nullptr) one.grid = {*quantize::device_fit(*x.grid), x.grid->rounding};
          }
          const auto verdict = [&](double go) { return at::tensor({1.0, 0.5, go}, at::kDouble).to(device); };
          ops.adamw(parameters, rates_of(1), verdict(1));
          ops.adamw(parameters, rates_of(2), verdict(0));
          ops.adamw(parameters, rates_of(2), verdict(1));
          Tensors out;
          for (const Ops::AdamParameter& x : parameters)
            out.insert(out.end(), {x.master, x.m, x.v, x.working.clone()});
          for (const Ops::AdamParameter& x : parameters) x.working.fill_(7);
          ops.adamw(parameters, rates_of(3), verdict(0));
          for (const Ops::AdamParameter& x : parameters) out.push_back(x.working);
          return out;
        },
        [&](const Tensors& got) {
          ASSERT_EQ(got.size(), want.size() + given.size());
          for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(same_numbers(got[i], want[i])) << i;
          for (size_t i = want.size(); i < got.size(); ++i)
            EXPECT_TRUE(got[i].eq(7).all().item<bool>()) << "a step that is left out writes nothing";
        });
}

TEST(CudaAdamW, ALossThatIsNotFiniteLeavesTheStepOut) {
  everywhere(
      "judge",
      [](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor pieces = at::ones({3}, at::TensorOptions(device).dtype(at::kDouble));
        const at::Tensor losses = at::tensor({1.0, static_cast<double>(NAN)}, at::kDouble).to(device);
        return {ops.judge(pieces, {1, 2}, losses, 0.0), ops.judge(pieces, {3}, losses.narrow(0, 0, 1), 0.0)};
      },
      [](const Tensors& got) {
        EXPECT_EQ(got[0][2].item<double>(), 0.0);
        EXPECT_TRUE(same_bits(got[1], at::tensor({std::sqrt(3.0), 1.0, 1.0}, at::kDouble)));
      });
}

}  // namespace
}  // namespace retort::testing
