#include "plan/communication.h"

#include <gtest/gtest.h>

namespace retort::plan {
namespace {

Workload million(int64_t ranks, int64_t micro_batches, bool bf16) {
  Workload work;
  work.parameters.trained_matrices = 1'000'000;
  work.batch = {.rows = 1, .sequence = 8, .micro_batches = micro_batches, .ranks = ranks};
  work.bf16 = bf16;
  return work;
}

}  // namespace

TEST(BytesSent, AllReduceAndTheShardedPolicies) {
  EXPECT_DOUBLE_EQ(all_reduce_bytes(8, 4), 12);
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 1, true), Policy::kNone), 2 * 0.75 * 4e6);
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 1, true), Policy::kZero1), 0.75 * 6e6);
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 2, true), Policy::kGradients), 0.75 * 2e6 * (2 + 1.25));
  Workload divided = million(4, 2, true);
  divided.gathered.brought = {.matrices = 1'900'000, .f32 = 1000};
  EXPECT_DOUBLE_EQ(bytes_sent(divided, Policy::kParameters), 2 * 0.75 * (2e6 + 1.25 * (3.8e6 + 4e3)));
  divided.teachers.emplace_back().gathered.passed.matrices = 1000;
  EXPECT_DOUBLE_EQ(bytes_sent(divided, Policy::kParameters), 2 * 0.75 * (2e6 + 1.25 * (3.8e6 + 4e3 + 4e3)));
  EXPECT_DOUBLE_EQ(bytes_sent(million(1, 2, true), Policy::kNone), 0);
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 1, true), Policy::kOptimizer), 2 * 0.75 * 4e6 + 0.75 * 1.25 * 4e6);
}

// Two groups of four that divide: between them go the sums of owned rows, one subtree or two of a group's run.
TEST(BytesSent, GroupsThatDivide) {
  Workload work = million(8, 2, true);
  work.batch.replicas = 2;
  EXPECT_DOUBLE_EQ(bytes_sent(work, Policy::kGradients), 0.75 * 2e6 * (2 + 1.25) + 2 * 0.5 * 1e6);
  work.batch.micro_batches = 3;
  EXPECT_DOUBLE_EQ(bytes_sent(work, Policy::kGradients), 0.75 * 2e6 * (3 + 1.25) + 3 * 0.5 * 1e6);
  EXPECT_DOUBLE_EQ(bytes_sent(work, Policy::kOptimizer), bytes_sent(work, Policy::kNone) + 0.75 * 1.25 * 4e6);
  work.batch.replicas = 8;
  EXPECT_DOUBLE_EQ(bytes_sent(work, Policy::kParameters), bytes_sent(work, Policy::kNone))
      << "nothing to divide";
}

// Three micro-batches a rank are two subtrees, each a row that is traded; one row is gathered.
TEST(BytesSent, ARowForEachSubtree) {
  EXPECT_DOUBLE_EQ(bytes_sent(million(2, 3, false), Policy::kNone), (2 + 1) * 0.5 * 4e6);
  EXPECT_DOUBLE_EQ(bytes_sent(million(2, 4, false), Policy::kNone), (1 + 1) * 0.5 * 4e6);
}

}  // namespace retort::plan
