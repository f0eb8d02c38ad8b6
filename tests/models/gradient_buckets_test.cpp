#include "models/gradient_buckets.h"

#include <gmock/gmock.h>

#include "models/bucket_bytes.h"
#include "models/written_rows.h"

namespace retort::models {

using ::testing::ElementsAre;

TEST(GradientBuckets, FillFromTheLastParameterByDtype) {
  // In f32 40 bytes fill a bucket: numbers 5 and 4 do, 2 is alone in the next, 0 joins it; 3 has no gradient.
  const std::vector<GradientSize> gradients = {{4}, {8, at::kBFloat16}, {6}, {0}, {9}, {1}};
  const std::vector<GradientBucket> buckets = gradient_buckets(gradients, 40);
  ASSERT_EQ(buckets.size(), 3);
  EXPECT_THAT(buckets[0].members, ElementsAre(5, 4));
  EXPECT_EQ(buckets[0].elements, 10);
  EXPECT_THAT(buckets[1].members, ElementsAre(1));
  EXPECT_EQ(buckets[1].dtype, at::kBFloat16);
  EXPECT_THAT(buckets[2].members, ElementsAre(2, 0)) << "backward completes it last";
}

TEST(GradientBuckets, PiecesKeepWhatARankReceivesBelowABucket) {
  for (const int64_t ranks : {1, 2, 8, 100}) {
    EXPECT_LE(ranks * piece_elements(kBucketBytes, at::kFloat, ranks) * 4, kBucketBytes) << ranks;
    EXPECT_NEAR(piece_elements(kBucketBytes, at::kBFloat16, ranks),
                2 * piece_elements(kBucketBytes, at::kFloat, ranks), 1);
  }
  EXPECT_EQ(piece_elements(kBucketBytes, at::kFloat, 10'000), (64 << 10) / 4) << "no shorter message";
  EXPECT_EQ(piece_elements(4, at::kDouble, 8), 1);
}

TEST(GradientBuckets, ADevicesAreLarger) {
  EXPECT_EQ(bucket_bytes(false), kBucketBytes);
  EXPECT_EQ(bucket_bytes(true), 8 * kBucketBytes);
}

TEST(GradientBuckets, OwnersAreCutWhereBlocksBegin) {
  const kernels::RowBlocks blocks{0, 10, 4};
  EXPECT_EQ(row_at(blocks, 3, -5), 0);
  EXPECT_EQ(row_at(blocks, 3, 11), 0);
  EXPECT_EQ(row_at(blocks, 3, 12), 4);
  EXPECT_EQ(row_at(blocks, 3, 29), 8);
  EXPECT_EQ(row_at(blocks, 3, 30), 10);
}

// Every row has one writer, however many hold it.
TEST(WrittenRows, ShareOutEveryRowOnce) {
  const kernels::RowBlocks rows{8, 27, 4};
  for (int64_t holders = 1; holders <= 7; ++holders) {
    int64_t next = rows.begin;
    for (int64_t holder = 0; holder < holders; ++holder) {
      const kernels::RowBlock mine = written_rows(rows, holder, holders);
      EXPECT_EQ(mine.begin, next);
      EXPECT_TRUE((mine.end - rows.begin) % rows.step == 0 || mine.end == rows.end);
      next = mine.end;
    }
    EXPECT_EQ(next, rows.end) << holders;
  }
}

}  // namespace retort::models
