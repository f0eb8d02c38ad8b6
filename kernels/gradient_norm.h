// The global norm of gradients, and clipping by it. The squares of a block of rows are added in f64, and the
// blocks' sums one after another in the order of the gradients and their rows. So the norm's bits depend
// neither on the thread count nor on which rank has a block. A device adds up a block in an order of its own. f32
// tensors, all on one device; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "kernels/row_blocks.h"

namespace retort::kernels {

struct BlockedGradient {
  at::Tensor values;  // contiguous
  RowBlocks blocks;   // those that count
};

// Sums of squares as they are found, where the gradients are: nothing waits for a device.
struct Squares {
  at::Tensor pieces;              // f64, each of a part of a block
  std::vector<int64_t> of_block;  // how many, of each block that counts
  // From the pieces on the host, the sum of each block that counts, in order.
  std::vector<double> blocks(std::span<const double> on_host) const;
};
Squares squares_of(const std::vector<BlockedGradient>& gradients);
// sqrt(sum of squares) of blocks, added in order; NaN or infinite when an element is.
double norm_of(const std::vector<double>& squares);
// Scales all in place by limit / norm when norm > limit. limit 0: never.
void clip_gradients(const std::vector<BlockedGradient>& gradients, double norm, double limit);

}  // namespace retort::kernels
