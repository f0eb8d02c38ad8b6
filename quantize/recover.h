// The codes and scales of a tensor that lies on a grid already, from its values alone: those of a checkpoint that was
// trained on the grid and written in bf16, f16 or f32. A group (what shares a scale: a block, a row, a tensor) lies on
// it where codes c and an f16 number d (on a grid with offsets two: c d + m) give every value back,  cast(c d) == w.
// cast is the rounding to the narrowest of the three types that holds the tensor. Several d may round to the same values
// (docs/quantization.md, "Recovering"); taken is
//   1. one that gives the values without rounding, where there is one
//   2. else the middle one
// Values that leave the largest code open (a group with one magnitude, codes with a common factor) take it from ggml's
// formula, where the grid has one and it fits, else the smallest that fits: the values are the same. Pure, parallel.
#pragma once

#include <string>

#include "quantize/grid.h"

namespace retort::quantize {

struct Recovered {
  Quantized quantized;                    // of groups that do not lie on the grid: its own fit
  at::Tensor found = {};                  // bool [.., groups]
  at::ScalarType precision = at::kFloat;  // the narrowest that holds the values
  bool whole() const { return found.all().item<bool>(); }
  double share() const { return found.to(at::kDouble).mean().item<double>(); }
};

// Why it cannot be done on the grid; "" when it can.
std::string recovery_misfit(const Grid& grid);
// w: dense f32 [rows, in], finite. A grid without a misfit.
Recovered recover(const at::Tensor& w, const Grid& grid);

}  // namespace retort::quantize
