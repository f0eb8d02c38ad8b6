// Training steps on a device beside the CPU's, and what a step makes the host wait for.
#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tests/fake_device/distilled_training.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

TEST(StepOnDevice, F32IsTheCpus) { expect_the_cpus(llama()); }

// By what bf16 itself is off from f32.
TEST(StepOnDevice, Bf16IsAsGoodAsTheCpus) {
  expect_as_good_as_the_cpus([](at::ScalarType dtype) { return llama(dtype); });
}

TEST(StepOnDevice, DistillationFromALiveTeacherIsTheCpus) {
  for (const char* loss : {"forward_kl", "reverse_kl", "jsd", "logit_mse", "top_k_ghost"}) {
    SCOPED_TRACE(loss);
    expect_the_cpus(distilled({{.fn = "cross_entropy", .weight = 0.5}, {.fn = loss, .weight = 0.5}}));
  }
  expect_the_cpus(distilled({{.fn = "forward_kl", .weight = 0.5, .temperature = 2.0},
                             {.fn = "cross_entropy", .weight = 0.25},
                             {.fn = "reverse_kl", .weight = 0.25}}));
}

TEST(StepOnDevice, LossesOnHiddenStatesAreTheCpus) {
  for (const char* loss : {"hidden_mse", "hidden_cosine", "attention_relation"}) {
    SCOPED_TRACE(loss);
    distill::LossOptions options{.fn = loss};
    if (options.fn == "attention_relation") options.relation_heads = 2;
    expect_the_cpus(distilled({{.fn = "cross_entropy"}, options}));
  }
}

// Cross-entropy whose gradient is not finite in one step, or whose value is not.
class Poisoned final : public train::Objective {
 public:
  Poisoned(int64_t step, bool value) : step_(step), value_(value) {}
  void begin_step(int64_t step) override { now_ = step; }
  train::LossSum operator()(models::Model& model, const data::Batch& batch) override {
    train::LossSum loss = (*inner_)(model, batch);
    if (now_ == step_) loss.sum = value_ ? loss.sum + NAN : loss.sum + (loss.sum - loss.sum.detach()) * NAN;
    return loss;
  }
  std::vector<std::string> part_names() const override { return inner_->part_names(); }

 private:
  std::unique_ptr<train::Objective> inner_ = train::make_cross_entropy();
  int64_t step_, now_ = -1;
  bool value_;
};

// What is not finite leaves its step out, whole, as on the CPU; the others go on, clipped. No step waits for more.
TEST(StepOnDevice, WhatIsNotFiniteIsLeftOutAndTheHostReadsOnce) {
  for (const bool value : {false, true}) {
    SCOPED_TRACE(value);
    Training training = llama();
    training.objective = [=](const models::Model&, const at::Device&) {
      return std::make_unique<Poisoned>(1, value);
    };
    const Ran got = run(training, fake_device()), want = run(training, at::kCPU);
    expect_close(got, want, kChain);
    for (size_t s = 0; s < got.steps.size(); ++s) {
      EXPECT_EQ(got.steps[s].skipped, s == 1);
      EXPECT_TRUE(s == 1 || got.steps[s].gradient_norm > kClip) << "clipping must be tried";
      EXPECT_EQ(got.all_traffic[s].host_reads(), 1) << s;
      EXPECT_EQ(got.all_traffic[s].uploads_waited, 0) << s;
    }
    EXPECT_EQ(got.updates, 2);
    EXPECT_EQ(want.updates, 2);
  }
}

// --- what a step waits for, and whose work it is

// LibTorch's operators in a step, which CUDA has kernels for, and why each is there. Any other is one of ours that is
// missing, or that was missed.
const std::set<std::string> kAllowed = {
    // products, and the table's rows
    "aten::mm.out",
    "aten::addmm.out",
    // the head's gradient: of bf16 into f32
    "aten::mm.dtype_out",
    "aten::addmm.dtype_out",
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

// Each operation by itself; micro_graph_test.cpp has the same of micro-batches that are repeated as graphs.
TEST(StepOnDevice, TheHostReadsOnceAStep) {
  for (Training training :
       {llama(at::kBFloat16), distilled({{.fn = "cross_entropy"}, {.fn = "forward_kl"}}, at::kBFloat16)}) {
    training.graphs = false;
    const Traffic traffic = run(training, fake_device()).all_traffic.back();
    EXPECT_EQ(traffic.to_host, 1);
    EXPECT_EQ(traffic.uploads_waited, 0);
    EXPECT_EQ(traffic.uploads_ahead, 4) << "tokens and labels of two micro-batches";
    EXPECT_EQ(traffic.scalars, 0);
    EXPECT_EQ(traffic.shapes, 0);
    EXPECT_GT(traffic.launches, 0);
    for (const auto& [name, times] : traffic.operators)
      EXPECT_TRUE(kAllowed.contains(name)) << name << ", " << times << " times";
  }
}

}  // namespace
}  // namespace retort::testing
