// The device's AdamW against train/adamw.h and train/gradient_norm.h, bit for bit.
#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/cuda_emulation/providers.h"
#include "train/adamw.h"
#include "train/gradient_norm.h"

namespace retort::testing {
namespace {

using kernels::cuda::AdamOptions;
using kernels::cuda::AdamW;
using kernels::cuda::Ops;
using models::Role;

// Sizes around a run, a block's part and a chunk, one of each kind of decay.
void declare(models::Parameters& parameters) {
  parameters.add("matrix", {300, 31}, Role::kMatrix);
  parameters.add("chunk", {64, 64}, Role::kHead);
  parameters.add("norm", {8}, Role::kNorm);
  parameters.add("embed", {4097}, Role::kEmbedding);
  parameters.add("bias", {1}, Role::kBias);
  for (models::Parameter& p : parameters.unique()) Random(1, p.name).fill_normal(p.master, 0.5);
}
Tensors gradients_of(const models::Parameters& parameters, uint64_t step) {
  Tensors out;
  for (const models::Parameter& p : parameters.unique()) {
    out.push_back(at::empty_like(p.master));
    Random(2, p.name, step).fill_normal(out.back(), 0.1);
  }
  return out;
}

constexpr double kClip = 3.0;
constexpr int kSteps = 4, kBroken = 2;  // the step whose gradients are not finite
double rate(int step) { return 1e-2 / (step + 1); }

// What training on the CPU does: a step that is not finite is left out.
Tensors on_cpu() {
  models::Parameters parameters;
  declare(parameters);
  const train::OptimizerOptions options;
  const auto optimizer = train::make_adamw(options, parameters);
  Tensors norms;
  for (int step = 0; step < kSteps; ++step) {
    if (step == kBroken) continue;
    Tensors gradients = gradients_of(parameters, static_cast<uint64_t>(step));
    const double norm = train::gradient_norm(gradients);
    norms.push_back(at::scalar_tensor(norm, at::kDouble));
    train::clip_gradients(gradients, norm, kClip);
    optimizer->step(parameters, gradients, rate(step));
  }
  Tensors out{at::stack(norms)};
  for (const models::Parameter& p : parameters.unique()) out.push_back(p.master);
  for (const auto& [name, state] : optimizer->state())
    if (name != "adamw.step") out.push_back(state);
  return out;
}

Tensors on_device(const Ops& ops, const at::Device& device, bool squares_given) {
  models::Parameters parameters;
  declare(parameters);
  std::vector<AdamW::Parameter> mine;
  for (const models::Parameter& p : parameters.unique()) {
    const at::Tensor master = placed(p.master, device);
    mine.push_back({master, at::zeros_like(master), at::zeros_like(master), at::zeros_like(master),
                    p.name == "norm" ? at::Tensor() : at::zeros_like(master, at::kBFloat16),
                    p.role == Role::kMatrix || p.role == Role::kHead});
  }
  AdamW optimizer(ops, mine);
  Tensors norms;
  for (int step = 0; step < kSteps; ++step) {
    const Tensors gradients = gradients_of(parameters, static_cast<uint64_t>(step));
    at::Tensor squares = at::zeros({1}, at::TensorOptions(device).dtype(at::kDouble));
    for (size_t i = 0; i < mine.size(); ++i) {
      mine[i].gradient.copy_(gradients[i]);
      if (step == kBroken && i == 3) mine[i].gradient[77] = INFINITY;
      squares.add_(mine[i].gradient.to(at::kDouble).square().sum());
    }
    const train::OptimizerOptions o;
    optimizer.step({.lr = rate(step),
                    .beta1 = o.beta1,
                    .beta2 = o.beta2,
                    .eps = o.eps,
                    .weight_decay = o.weight_decay,
                    .clip = kClip},
                   squares_given ? squares : at::Tensor());
    norms.push_back(optimizer.figures()[0].clone());
  }
  norms.erase(norms.begin() + kBroken);
  Tensors out{at::stack(norms), optimizer.figures().narrow(0, 1, 2).clone()};
  for (const AdamW::Parameter& p : mine) out.push_back(p.master);
  for (const AdamW::Parameter& p : mine) out.insert(out.end(), {p.m, p.v});
  for (const AdamW::Parameter& p : mine)
    if (p.working.defined()) {
      out.push_back(p.working);
      EXPECT_TRUE(same_bits(p.working.to(at::kCPU), p.master.to(at::kCPU).to(at::kBFloat16)));
    }
  return out;
}

TEST(CudaAdamW, MakesTheBitsOfTheCpu) {
  const Tensors want = on_cpu();
  for (const bool squares_given : {false, true})
    everywhere(
        "adamw",
        [&](const Ops& ops, const at::Device& device) { return on_device(ops, device, squares_given); },
        [&](const Tensors& got) {
          EXPECT_LE(relative_error(got[0], want[0]), 1e-14);
          EXPECT_GT(want[0].max().item<double>(), kClip);  // so clipping was tried
          EXPECT_EQ(got[1][0].item<double>(), kSteps - 1);
          EXPECT_EQ(got[1][1].item<double>(), 1);
          for (size_t i = 1; i < want.size(); ++i) EXPECT_TRUE(same_bits(got[i + 1], want[i])) << i;
        });
}

}  // namespace
}  // namespace retort::testing
