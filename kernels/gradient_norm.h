// The global norm of gradients, and clipping by it. The sum of squares is, in f64, the sum of all block sums in
// the order given. Blocks are those that a parameter's owners share (models/placement.h), so the bits depend
// neither on the thread count nor on who owns which block. f32 tensors on the CPU; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "kernels/row_blocks.h"

namespace retort::kernels {

struct BlockedGradient {
  at::Tensor gradient;
  RowBlocks blocks;
};

// sqrt(sum of squares); NaN or infinite when an element is.
double gradient_norm(const std::vector<BlockedGradient>& gradients);
// Scales all in place by limit / norm when norm > limit. limit 0: never.
void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double limit);

}  // namespace retort::kernels
