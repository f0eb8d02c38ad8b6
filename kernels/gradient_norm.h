// The global norm of gradients, and what follows from it for a step. Sums of squares are f64, in one order on every
// device (exact squares, so that no rounding of a product differs either):
//
//   piece   4096 elements of a block from its start: element e is added to sum e % 2048; eight neighbouring sums in pairs,
//           then those 256 by halves of 32, then of 8
//   block   its pieces one after another; the norm: the blocks in the order of the gradients and their rows
//
// So the norm's bits depend neither on the device, nor on the thread count, nor on which rank has a block. f32 tensors,
// all on one device; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "kernels/row_blocks.h"

namespace retort::kernels {

namespace cuda {
class Ops;
}

struct BlockedGradient {
  at::Tensor values;  // contiguous
  RowBlocks blocks;   // those that count
};

// Sums of squares as they are found, where the gradients are: nothing waits for a device.
struct Squares {
  at::Tensor pieces;                  // f64, each of a part of a block
  std::vector<int64_t> of_block;      // how many, of each block that counts
  const cuda::Ops* device = nullptr;  // whose kernels take them; nullptr: the CPU
  // From the pieces on the host, the sum of each block that counts, in order.
  std::vector<double> blocks(std::span<const double> on_host) const;
};
Squares squares_of(const std::vector<BlockedGradient>& gradients);
// sqrt(sum of squares) of blocks, added in order; NaN or infinite when an element is.
double norm_of(const std::vector<double>& squares);

// What an update does with gradients, f64 [3]:
//   norm     of all of them
//   factor   what each is multiplied by: limit / norm where the norm is above a limit that is not 0, else 1; rounded to f32
//   go       1 where the norm and the sum of losses are finite; 0: the step is left out
at::Tensor judge(const Squares& squares, const at::Tensor& losses,
                 double limit);                              // where they are: nothing waits
at::Tensor verdict(double norm, bool finite, double limit);  // on the host

}  // namespace retort::kernels
