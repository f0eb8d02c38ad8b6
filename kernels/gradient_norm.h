// The global norm of a list of gradients, and clipping by it. The sum of squares runs in f64 over fixed
// blocks, so its bits do not depend on the thread count. f32 tensors on the CPU; ShapeError for others.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace retort::kernels {

// sqrt(sum of squares); NaN or infinite when an element is.
double gradient_norm(const std::vector<at::Tensor>& gradients);
// Scales all in place by limit / norm when norm > limit. limit 0: never.
void clip_gradients(std::vector<at::Tensor>& gradients, double norm, double limit);

}  // namespace retort::kernels
