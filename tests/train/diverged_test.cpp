#include "train/diverged.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <atomic>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/train/tiny_model.h"

namespace retort::train {
namespace {

using ::testing::HasSubstr;

TrainOptions bf16_options() {
  TrainOptions options;
  options.optimizer.lr = 0.5, options.schedule.warmup = 7, options.precision = "bf16";
  return options;
}

std::string refusal(const Trained& trained, double loss, comm::Comm& comm,
                    const TrainOptions& options = bf16_options()) {
  try {
    refuse_diverged(trained, loss, 12, options, comm);
  } catch (const NonFiniteError& error) {
    return error.what();
  }
  return "";
}

void spoil(models::Parameter& p) { p.master.flatten()[3] = std::numeric_limits<float>::infinity(); }

}  // namespace

TEST(Diverged, WeightsAndTheLossMustBeFinite) {
  const at::NoGradGuard no_grad;
  TinyModel tiny;
  const Trained trained(tiny.model.parameters());
  const auto comm = comm::make_self_comm();
  EXPECT_EQ(refusal(trained, 3.5, *comm), "");
  EXPECT_THAT(refusal(trained, NAN, *comm),
              HasSubstr("step 12: training has diverged, the validation loss is nan"));
  EXPECT_THAT(refusal(trained, INFINITY, *comm), HasSubstr("the validation loss is inf"));
  spoil(tiny.model.parameters().at("final_norm.weight"));
  const std::string text = refusal(trained, 3.5, *comm);
  for (const char* part :
       {"final_norm.weight is not finite", "train.optimizer.lr (0.5)", "train.clip_norm (1;",
        "train.schedule.warmup (7)", "train.precision: fp32 (bf16)", "checkpoints are kept"})
    EXPECT_THAT(text, HasSubstr(part));
}

TEST(Diverged, WhatIsAdvisedCanBeDone) {
  TinyModel tiny;
  TrainOptions options = bf16_options();
  options.steps = 8;
  const auto advice = [&] {
    const std::string text = refusal({tiny.model.parameters()}, NAN, *comm::make_self_comm(), options);
    return text.substr(text.find("Lower "));
  };
  EXPECT_EQ(advice(),
            "Lower train.optimizer.lr (0.5) or train.clip_norm (1; 0: no clipping), raise "
            "train.schedule.warmup (7), or take train.precision: fp32 (bf16)");
  options.steps = 7;  // all of them warm up
  EXPECT_EQ(advice(),
            "Lower train.optimizer.lr (0.5) or train.clip_norm (1; 0: no clipping), or take "
            "train.precision: fp32 (bf16)");
  options.clip_norm = 0, options.precision = "fp32";
  EXPECT_EQ(advice(), "Lower train.optimizer.lr (0.5), set train.clip_norm (0: no clipping)");
}

TEST(Diverged, FrozenWeightsAreNotLookedAt) {
  const at::NoGradGuard no_grad;
  TinyModel tiny;
  models::Parameter& norm = tiny.model.parameters().at("final_norm.weight");
  norm.freeze();
  spoil(norm);
  EXPECT_EQ(refusal({tiny.model.parameters()}, 0, *comm::make_self_comm()), "");
}

// Each rank may hold rows of its own.
TEST(Diverged, AllRanksNameWhatOneHasFound) {
  std::atomic<int> named = 0;
  comm::run_thread_ranks(2, [&](comm::Comm& comm) {
    const at::NoGradGuard no_grad;
    TinyModel tiny;
    if (comm.rank() == 1) spoil(tiny.model.parameters().at("final_norm.weight"));
    const std::string text = refusal({tiny.model.parameters()}, 3.5, comm);
    named += text.find("final_norm.weight is not finite") != text.npos ? 1 : 0;
  });
  EXPECT_EQ(named, 2);
}

}  // namespace retort::train
