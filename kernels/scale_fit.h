// How the scales of a grid follow from its values, by the numbers that grids (quantize/grid.h) and the CUDA kernels use.
// A group is that many consecutive values of a row; 0: the row. All in f32; f16() is the nearest f16 number, no larger
// than the largest. kQ8_0 and kQ4_0 round by d and multiply by f16(d).
#pragma once

#include <cstdint>

namespace retort::kernels {

enum class Fit {
  kQ8_0,       // d = amax / 127; groups of 32
  kQ4_0,       // d = the value of largest magnitude / -8; groups of 32
  kQ4_1,       // m = f16(least), s = f16((largest - m) / 15); groups of 32
  kInteger,    // s = f16(amax / half_range), at least 2^-24; groups of 32 or 128, or rows
  kFloat8,     // s = amax / 448, at least 1e-12; rows
  kMean,       // s = f16(mean |x|); rows
  kMeanOfAll,  // s = f16(the mean of the rows' mean |x|); the whole tensor
};

struct ScaleFit {
  Fit fit = Fit::kQ8_0;
  int64_t group = 0;
  double half_range = 0;  // of kInteger
};

}  // namespace retort::kernels
