#include "plan/step_time.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::plan {
namespace {

Device simple() {
  return {.name = "x",
          .f32 = 1e12,
          .bf16 = 4e12,
          .node_bandwidth = 1e9,
          .network_bandwidth = 1e8,
          .ranks_a_node = 8,
          .share = 0.5,
          .half_width = 100};
}

}  // namespace

TEST(StepTime, ComputeIsFlopsAtTheShareOfTheWidth) {
  const StepTime time = step_time({.flops = 1e12, .width = 300}, simple());
  EXPECT_DOUBLE_EQ(time.efficiency, 0.375);
  EXPECT_DOUBLE_EQ(time.total(), 1 / 0.375);
  EXPECT_DOUBLE_EQ(step_time({.flops = 1e12, .width = 300, .bf16 = true}, simple()).total(), 0.25 / 0.375);
}

// 1.5 s of compute in 2 micro-batches: a backward pass of 0.5 s, of which 3/4 hide what is sent.
TEST(StepTime, CommunicationHidesBehindTheLastBackwardPass) {
  StepWork work{
      .flops = 1.5e12 * 0.375, .bytes = 1e9, .width = 300, .layers = 4, .micro_batches = 2, .ranks = 2};
  EXPECT_DOUBLE_EQ(step_time(work, simple()).exposed, 1 - 0.375);
  work.bytes = 1e8;
  EXPECT_DOUBLE_EQ(step_time(work, simple()).exposed, 0);
  work.ranks = 16;  // over the network
  EXPECT_DOUBLE_EQ(step_time(work, simple()).exposed, 1 - 0.375);
}

TEST(StepTime, RanksOfASharedDeviceDivideItsRate) {
  Device cpu = measured_cpu(1000, 1000);
  const double alone = step_time({.flops = 1e12, .width = 64}, cpu).compute;
  EXPECT_DOUBLE_EQ(step_time({.flops = 1e12, .width = 64, .ranks = 4}, cpu).compute, 4 * alone);
}

TEST(StepTime, UnknownRatesAreRefused) { EXPECT_THROW(step_time({}, devices().at("cpu")), ConfigError); }

// A prior is no measurement, but it must be near the rows that it was made from: llm-foundry's 7B on 8 H100.
TEST(StepTime, TheShareOfH100GivesLlmFoundrys7b) {
  const double flops = 4.595096e14;  // a second, of a GPU
  EXPECT_NEAR(step_time({.flops = flops, .width = 4096, .bf16 = true}, devices().at("h100")).compute, 1.0,
              0.02);
}

}  // namespace retort::plan
