// Training steps on a device beside the CPU's, and what a step makes the host wait for.
#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "tests/fake_device/distilled_training.h"
#include "tests/models/tiny.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

TEST(StepOnDevice, F32IsTheCpus) { expect_the_cpus(llama()); }

// By what bf16 itself is off from f32.
TEST(StepOnDevice, Bf16IsAsGoodAsTheCpus) {
  expect_as_good_as_the_cpus([](at::ScalarType dtype) { return llama(dtype); });
}

// Rows longer than a window, and than the context that longrope begins beyond.
TEST(StepOnDevice, EveryFamilyInBf16IsAsGoodAsTheCpus) {
  for (const models::DecoderSpec& spec : tiny_families()) {
    SCOPED_TRACE(spec.family + " " + spec.rope_scaling.kind);
    expect_as_good_as_the_cpus([&](at::ScalarType dtype) {
      return Training{.model = [&] { return random_model(spec); },
                      .batch = [](int64_t number) { return train::tiny_batch(number, 2, 20); },
                      .dtype = dtype};
    });
  }
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

// So many of a step of two micro-batches, and so many for each of its layers.
struct Times {
  int64_t step = 0, layer = 0;
  int64_t of(int64_t layers) const { return step + layer * layers; }
};
struct Operator {
  const char* name;
  Times plain,
      distilled;  // from cross-entropy, and with forward KL beside it from a teacher of as many layers
};

// LibTorch's operators in a step, which CUDA has kernels for, and why each is there. Any other, and any more, is one of ours
// that is missing, or that was missed.
const Operator kOperators[] = {
    // ours: two norms, rope and a gate of a layer each way, and the sums of the norms' gradients; the rest is a step's
    {"launches", {13, 20}, {15, 28}},
    // products: seven of a layer forward and their two gradients each, of which three are added where a sum lies; the head's
    {"aten::mm.out", {4, 36}, {6, 50}},
    {"aten::addmm.out", {0, 6}, {0, 6}},
    {"aten::mm.dtype_out", {2, 0}, {2, 0}},  // the head's gradient: of bf16 into f32
    {"aten::index_select", {2, 0}, {4, 0}},  // rows of the table
    // the residual stream and its gradients, sums over micro-batches, the mean's factor
    {"aten::add.out", {8, 9}, {14, 11}},
    {"aten::mul.out", {4, 0}, {4, 4}},
    {"aten::div.out", {2, 0}, {2, 0}},
    // casts between f32 and bf16, and working copies
    {"aten::copy_", {20, 34}, {30, 62}},
    // sums that begin at 0, gradients of 1
    {"aten::zero_", {6, 0}, {10, 0}},
    {"aten::fill_.Scalar", {3, 0}, {3, 8}},
    // sums of rows' losses; positions; rows that have a label
    {"aten::sum.IntList_out", {2, 0}, {2, 0}},
    {"aten::arange.start_out", {2, 0}, {4, 0}},
    {"aten::ne.Scalar_out", {0, 0}, {2, 0}},
    // tokens in the order of their ids, for the embedding's gradient
    {"aten::sort.values_stable", {2, 0}, {2, 0}},
    // the vector that the host reads, and what it is made of
    {"aten::cat.out", {4, 0}, {4, 0}},
    // the teacher's attention: one kernel of LibTorch's on CUDA, which PrivateUse1 gets in pieces
    {"aten::bmm.out", {0, 0}, {0, 4}},
    {"aten::_softmax.out", {0, 0}, {0, 2}},
    {"aten::tril.out", {0, 0}, {0, 2}},
    {"aten::isneginf.out", {0, 0}, {0, 2}},
    {"aten::all.out", {0, 0}, {0, 2}},
    {"aten::where.self", {0, 0}, {0, 2}},
    {"aten::where.self_out", {0, 0}, {0, 2}},
};

Training of_layers(int64_t layers, bool distilled) {
  const auto model = [=](uint64_t seed) {
    return [=] {
      models::DecoderSpec spec = small_llama();
      spec.layers = layers, spec.head_dim = 8;  // which flash takes
      auto out = std::make_unique<models::Decoder>(spec);
      models::initialise(out->parameters(), "gpt2", 0.1, seed);
      return out;
    };
  };
  const Training training{.model = model(5), .dtype = at::kBFloat16, .graphs = false};
  return distilled ? testing::distilled(training, model(9), {{.fn = "cross_entropy"}, {.fn = "forward_kl"}})
                   : training;
}

// Each operation by itself; micro_graph_test.cpp has the same of micro-batches that are repeated as graphs.
TEST(StepOnDevice, TheHostReadsOnceAStepAndLibTorchDoesWhatItMust) {
  for (const bool distilled : {false, true})
    for (const int64_t layers : {1, 3}) {
      SCOPED_TRACE(fmt::format("{} layers, distilled {}", layers, distilled));
      const Traffic traffic = run(of_layers(layers, distilled), fake_device()).all_traffic.back();
      EXPECT_EQ(traffic.to_host, 1);
      EXPECT_EQ(traffic.uploads_waited, 0);
      EXPECT_EQ(traffic.uploads_ahead, 4) << "tokens and labels of two micro-batches";
      EXPECT_EQ(traffic.scalars, 0);
      EXPECT_EQ(traffic.shapes, 0);
      std::map<std::string, int64_t> got = traffic.operators, want;
      got["launches"] = traffic.launches;
      for (const Operator& op : kOperators)
        if (const int64_t times = (distilled ? op.distilled : op.plain).of(layers)) want[op.name] = times;
      for (const auto& [name, times] : want) EXPECT_EQ(got[name], times) << name;
      for (const auto& [name, times] : got)
        EXPECT_TRUE(want.contains(name)) << name << ", " << times << " times";
    }
}

}  // namespace
}  // namespace retort::testing
