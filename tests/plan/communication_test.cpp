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
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 2, true), Policy::kZero3), 2 * 3 * 0.75 * 2e6);
  EXPECT_DOUBLE_EQ(bytes_sent(million(1, 2, true), Policy::kNone), 0);
  EXPECT_DOUBLE_EQ(bytes_sent(million(4, 1, true), Policy::kOptimizer), 2 * 0.75 * 4e6 + 0.75 * 1.25 * 4e6);
}

// Three micro-batches a rank are two subtrees, each a row that is traded; one row is gathered.
TEST(BytesSent, ARowForEachSubtree) {
  EXPECT_DOUBLE_EQ(bytes_sent(million(2, 3, false), Policy::kNone), (2 + 1) * 0.5 * 4e6);
  EXPECT_DOUBLE_EQ(bytes_sent(million(2, 4, false), Policy::kNone), (1 + 1) * 0.5 * 4e6);
}

}  // namespace retort::plan
