// Where the values of a parameter are: the device, the blocks that this rank owns, the part that it uses.
//
//   owner   of a block: has its master values and its optimizer state
//   user    of a part: has its working values, and multiplies with them
//
// Every parameter is whole today: each rank owns all blocks and uses all rows.
#pragma once

#include <ATen/ATen.h>

#include "kernels/row_blocks.h"

namespace retort::models {

using kernels::RowBlock, kernels::RowBlocks;

// All rows of a parameter as blocks, in order: the fewest whole rows that hold 2^15 elements each. Blocks are
// what a rank owns, what the gradient norm adds up by, and what the optimizer and checkpoints walk over. A
// weight map that makes values from more than a row may ask for larger ones (WeightMap::blocks).
RowBlocks cut_into_blocks(at::IntArrayRef shape);

// Indices [begin, end) of one dimension.
struct Part {
  int64_t dimension = 0, begin = 0, end = 0;
  at::Tensor of(const at::Tensor& whole) const { return whole.narrow(dimension, begin, end - begin); }
};

struct Placement {
  at::Device device = at::kCPU;
  RowBlocks owned;
  Part used;

  // All of a parameter, on one device.
  static Placement whole(at::IntArrayRef shape, at::Device device);
  bool owns_all(at::IntArrayRef shape) const;
};

}  // namespace retort::models
