// How the gradients of a step are packed for the ranks, and which rows of each a rank owns: the one rule of the run
// (train/grad_sync.h, train/scattered_sum.h, train/owners.h) and of the plan (plan/gradient_flow.h). Pure functions.
//
//   bucket   from the last parameter to the first, as backward completes them; each joins the newest bucket of its dtype
//            until that has `bucket_bytes`
//   piece    of a bucket that goes to owners: of each rank's rows in it as many elements as fit bucket_bytes / ranks, so
//            that no rank receives more than bucket_bytes at once, however many ranks send and whoever owns the bucket
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "kernels/row_blocks.h"

namespace retort::models {

inline constexpr int64_t kBucketBytes = int64_t{8} << 20;
inline constexpr size_t kPiecesUnderWay = 2;  // one that is sent while the next is packed

struct GradientSize {
  int64_t elements = 0;  // 0: backward makes none, so it is in no bucket
  at::ScalarType dtype = at::kFloat;
};

struct GradientBucket {
  std::vector<size_t> members;  // numbers of parameters, falling
  at::ScalarType dtype = at::kFloat;
  int64_t elements = 0;
};

// In the order in which backward completes them.
std::vector<GradientBucket> gradient_buckets(const std::vector<GradientSize>& gradients,
                                             int64_t bucket_bytes);
int64_t piece_elements(int64_t bucket_bytes, at::ScalarType dtype, int64_t ranks);  // of a rank's rows

// A rank owns a run of all elements, cut where blocks begin: the first row of the block that holds element `wanted` of a
// parameter with rows of `row` elements, or that begins there; an end where it lies outside.
int64_t row_at(const kernels::RowBlocks& blocks, int64_t row, int64_t wanted);

}  // namespace retort::models
