// The gradient of rounding under one learned scale a row: y = code * scale, v = x / scale, g = dL/dy.
//   dL/dx = g where low <= v <= high, else 0
//   dL/dscale = sum of g (code - v where x is inside and is followed; code elsewhere)
// (LSQ, Esser et al. 2020, arXiv 1902.08153.) Rows are independent and their sums run in a fixed order: the
// same bits with any number of threads, and on a device that has kernels (kernels/cuda_ops.h). f32; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include "kernels/block_codes.h"

namespace retort::kernels {

struct LearnedRounding {
  Rounding rounding;
  double low = 0, high = 0;
  bool follows = true;  // false: code - v is code everywhere
};

inline constexpr double kLeastLearned = 0x1p-14, kMostLearned = 65504.0;
// The scales of their logarithms: f16(exp(theta)) within kLeastLearned and kMostLearned. theta f32, of any shape; NaN stays.
at::Tensor learned_scales(const at::Tensor& theta);

// x [rows, row], scale [rows, 1], gradient as x. Writes dL/dx into `out`, contiguous and of x's shape, which
// may be `gradient`; gives scale * dL/dscale, f64 [rows, 1].
at::Tensor round_backward(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gradient,
                          const LearnedRounding& rule, const at::Tensor& out);

}  // namespace retort::kernels
