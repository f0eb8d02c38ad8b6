// Scales that training moves, one a row. The parameter is theta = log(scale): the scale is positive by
// construction, and a step of an optimizer that normalises gradients (Adam) moves every scale by the same
// *ratio*, whatever its size (Jain et al. 2019, arXiv 1903.08066, train log2 of a threshold for the same
// reasons). Weights are made with the scale f16(exp(theta)) within [2^-14, 65504], whose rounding the
// gradient passes unchanged.
#pragma once

#include <optional>

#include "quantize/grid.h"

namespace retort::quantize {

Scales learned_scales(const at::Tensor& theta);  // f32 [rows, 1] -> scales [rows, 1]
at::Tensor theta_of(const Scales& scales);       // its inverse, up to f16
// A fit: `multiple` of a row's mean magnitude.
std::function<Scales(const at::Tensor&, const at::Tensor&)> from_mean_magnitude(double multiple);

struct LearnedGradient {
  at::Tensor weight;  // [rows, in]
  at::Tensor theta;   // [rows, 1]
};
// From the gradient of the values that a learned `grid` makes of w [rows, in] under theta. The weight's is
// written into `weight`, dense f32, where that is given; it may be `gradient`. Where w is a part of the rows, `elements`
// says how many the whole has.
LearnedGradient pull_back(const Grid& grid, const at::Tensor& w, const at::Tensor& theta,
                          const at::Tensor& gradient, const at::Tensor& weight = {},
                          std::optional<int64_t> elements = {});

}  // namespace retort::quantize
