// Training steps on a device beside the CPU's, and what a step makes the host wait for.
#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "distill/objectives.h"
#include "tests/fake_device/training.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

Training llama(at::ScalarType dtype = at::kFloat) {
  return {.model = [] { return small_model(); }, .dtype = dtype};
}

Training distilled(std::vector<distill::LossOptions> losses, at::ScalarType dtype = at::kFloat) {
  Training training = llama(dtype);
  training.objective = [=](const models::Model& student, const at::Device& device) {
    auto teacher = small_model(9);
    models::IdentityMap identity;
    models::bind_working(teacher->parameters(), identity, dtype);
    models::move_working_to(teacher->parameters(), device);
    distill::ObjectiveInput input{.model = student};
    input.teacher = distill::make_live_teacher(std::move(teacher));
    input.losses = losses;
    return distill::objectives().at("distillation").make(std::move(input));
  };
  return training;
}

TEST(StepOnDevice, F32IsTheCpus) { expect_the_cpus(llama()); }

// By what bf16 itself is off from f32.
TEST(StepOnDevice, Bf16IsAsGoodAsTheCpus) {
  const Ran got = run(llama(at::kBFloat16), fake_device()), usual = run(llama(at::kBFloat16), at::kCPU),
            exact = run(llama(), at::kCPU);
  for (size_t s = 0; s < exact.steps.size(); ++s) {
    const double own = std::abs(usual.steps[s].loss - exact.steps[s].loss);
    EXPECT_NEAR(got.steps[s].loss, exact.steps[s].loss, 2 * own + 0x1p-8);
    EXPECT_NEAR(got.steps[s].gradient_norm, exact.steps[s].gradient_norm,
                0x1p-5 * exact.steps[s].gradient_norm);
  }
}

TEST(StepOnDevice, DistillationFromALiveTeacherIsTheCpus) {
  for (const char* loss : {"forward_kl", "reverse_kl", "jsd", "logit_mse", "top_k_ghost"}) {
    SCOPED_TRACE(loss);
    expect_the_cpus(distilled({{.fn = "cross_entropy", .weight = 0.5}, {.fn = loss, .weight = 0.5}}));
  }
}

TEST(StepOnDevice, LossesOnHiddenStatesAreTheCpus) {
  for (const char* loss : {"hidden_mse", "hidden_cosine", "attention_relation"}) {
    SCOPED_TRACE(loss);
    distill::LossOptions options{.fn = loss};
    if (options.fn == "attention_relation") options.relation_heads = 2;
    expect_the_cpus(distilled({{.fn = "cross_entropy"}, options}));
  }
}

// A loss that is not finite leaves the step out, as on the CPU.
TEST(StepOnDevice, WhatIsNotFiniteIsLeftOut) {
  const auto poisoned = [](const at::Device& device) {
    Training training = llama();
    training.model = [] {
      auto model = small_model();
      model->parameters().at("layers.0.ffn.up.weight").master[0][0] = NAN;
      return model;
    };
    return run(training, device);
  };
  const Ran got = poisoned(fake_device()), want = poisoned(at::kCPU);
  for (const train::StepStats& step : got.steps) EXPECT_TRUE(step.skipped);
  for (const auto& [name, master] : want.masters)
    EXPECT_TRUE(same_bits(got.masters.at(name), master)) << name;
}

// --- what a step waits for, and whose work it is

// LibTorch's operators in a step, which CUDA has kernels for, and why each is there. Any other is one of ours that is
// missing, or that was missed.
const std::set<std::string> kAllowed = {
    // products, and the table's rows
    "aten::mm.out",
    "aten::addmm.out",
    "aten::bmm.out",
    "aten::index_select",
    // attention: one kernel of LibTorch's on CUDA, which PrivateUse1 gets in pieces
    "aten::_softmax.out",
    "aten::_softmax_backward_data.out",
    "aten::tril.out",
    "aten::isneginf.out",
    "aten::all.out",
    "aten::where.self",
    "aten::where.self_out",
    "aten::zero_",
    // the residual stream and its gradients, sums over micro-batches, the mean's factor
    "aten::add.out",
    "aten::mul.out",
    "aten::div.out",
    // casts between f32 and bf16, and working copies
    "aten::copy_",
    // sums that begin at 0, gradients of 1, a table of chunks
    "aten::fill_.Scalar",
    // sums of rows' losses; positions; the rows that have a label, for losses on hidden states
    "aten::sum.IntList_out",
    "aten::arange.start_out",
    "aten::ne.Scalar_out",
    // tokens in the order of their ids, for the embedding's gradient
    "aten::sort.values_stable",
    // the vector that the host reads
    "aten::cat.out",
};

TEST(StepOnDevice, TheHostReadsOnceAStep) {
  for (const Training& training :
       {llama(at::kBFloat16), distilled({{.fn = "cross_entropy"}, {.fn = "forward_kl"}}, at::kBFloat16)}) {
    const Traffic traffic = run(training, fake_device()).traffic;
    EXPECT_EQ(traffic.to_host, 1);
    EXPECT_EQ(traffic.scalars, 0);
    EXPECT_EQ(traffic.shapes, 0);
    EXPECT_GT(traffic.launches, 0);
    for (const auto& [name, times] : traffic.operators)
      EXPECT_TRUE(kAllowed.contains(name)) << name << ", " << times << " times";
  }
}

}  // namespace
}  // namespace retort::testing
