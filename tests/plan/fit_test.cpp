#include "plan/fit.h"

#include <gtest/gtest.h>

#include "tests/plan/shapes.h"

namespace retort::plan {
namespace {

Workload of(const models::DecoderSpec& spec, int64_t rows, int64_t ranks, int64_t sequence = 4096) {
  return workload_of(*shape(spec), {.rows = rows, .sequence = sequence, .ranks = ranks}, {.bf16 = true});
}

const Device& h100() { return devices().at("h100"); }

}  // namespace

TEST(Fit, SmallModelsNeedNoRemedy) { EXPECT_TRUE(fits(of(gpt(12, 768, 12, 50257, 4096), 4, 1), h100())); }

// 0.8 B parameters with 347 GB of activations: smaller micro-batches help.
TEST(Fit, FewerRowsWhereActivationsAreTooMany) {
  const Workload work = of(gpt(24, 1536, 12, 50257, 4096), 64, 1);
  ASSERT_FALSE(fits(work, h100()));
  const Remedy found = remedy(work, h100());
  ASSERT_TRUE(found.rows.has_value());
  EXPECT_LT(*found.rows, 64);
  Workload smaller = work;
  smaller.batch.rows = *found.rows;
  smaller.batch.micro_batches = 64 / *found.rows;
  EXPECT_TRUE(fits(smaller, h100()));
  smaller.batch.rows *= 2;
  smaller.batch.micro_batches /= 2;
  EXPECT_FALSE(fits(smaller, h100())) << "a larger one would have done";
}

// 8 B: no micro-batch helps; divided states do.
TEST(Fit, PoliciesAndRanksWhereStatesAreTooMany) {
  const Workload work = of(llama3_8b(), 1, 1, 1024);
  const Remedy found = remedy(work, h100());
  EXPECT_FALSE(found.rows.has_value());
  ASSERT_TRUE(found.sharding.has_value());
  EXPECT_GT(found.sharding->ranks, 1);
  Workload fewer = work;
  fewer.batch.ranks = found.sharding->ranks / 2;
  for (const Policy policy : kPolicies) EXPECT_FALSE(fits(fewer, h100(), policy)) << policy_name(policy);
}

// 70 B in f32 fit no rank: divided they do, unless a start has them whole.
TEST(Fit, DividedParametersWhereOneCopyIsTooMuch) {
  Workload work = of(llama3_70b(), 1, 8, 1024);
  work.validates = true;
  const Remedy found = remedy(work, h100());
  EXPECT_FALSE(found.rows.has_value());
  ASSERT_TRUE(found.sharding.has_value());
  EXPECT_EQ(found.sharding->policy, Policy::kParameters);
  work.starts_whole = true;
  EXPECT_FALSE(remedy(work, h100()).sharding.has_value());
  work.batch.ranks = 64;
  EXPECT_EQ(peak(work, Policy::kParameters).name, "start");
  work.starts_whole = false, work.on_grid = true;
  EXPECT_EQ(peak(work, Policy::kParameters).name, "validation");
}

TEST(Fit, MoreRanksOfOneMachineHaveNoMoreMemory) {
  const Remedy found = remedy(of(llama3_405b(), 1, 2), measured_cpu(100, 100));
  EXPECT_FALSE(found.rows.has_value());
  EXPECT_FALSE(found.sharding.has_value());
}

}  // namespace retort::plan
