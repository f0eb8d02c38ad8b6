// The gradient of rounding under one learned scale a row: y = code * scale, v = x / scale, g = dL/dy.
//   dL/dx = g where low <= v <= high, else 0
//   dL/dscale = sum of g (code - v where x is inside and is followed; code elsewhere)
// (LSQ, Esser et al. 2020, arXiv 1902.08153.) Rows are independent and their sums run in a fixed order: the
// same bits with any number of threads. f32 on the CPU; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include "kernels/block_codes.h"

namespace retort::kernels {

struct LearnedRounding {
  Rounding rounding;
  double low = 0, high = 0;
  bool follows = true;  // false: code - v is code everywhere
};

// x [rows, row], scale [rows, 1], gradient as x. Writes dL/dx into `out`, contiguous and of x's shape, which
// may be `gradient`; gives scale * dL/dscale, f64 [rows, 1].
at::Tensor round_backward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gradient,
                          const LearnedRounding& rule, const at::Tensor& out);

}  // namespace retort::kernels
