// What a step does in two halves (train/step.cpp) at once: sums of squares of gradients' blocks, on the host.
#pragma once

#include "kernels/gradient_norm.h"

namespace retort::kernels {

inline std::vector<double> block_squares(const std::vector<BlockedGradient>& gradients) {
  const Squares squares = squares_of(gradients);
  const at::Tensor host = squares.pieces.cpu();
  return squares.blocks({host.const_data_ptr<double>(), static_cast<size_t>(host.numel())});
}

}  // namespace retort::kernels
