// One step of AdamW (Loshchilov and Hutter 2019, algorithm 2) in LibTorch's order: epsilon is added after the
// bias-corrected root.
//   p *= 1 - lr * decay;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr * (m / (1-b1^t)) / (sqrt(v) / sqrt(1-b2^t) + eps)
// All tensors in one pass over memory (28 bytes an element), every element by the same operations, so the
// bits depend neither on the thread count nor on the processor nor on the device. f32, all on the CPU or all on one
// device, where one launch updates all and nothing waits; ShapeError for others. There the launch can write working copies
// too, cast or rounded to a grid, of masters that it has at hand (2 bytes more instead of another pass over 6).
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "kernels/fitted_values.h"
#include "kernels/row_blocks.h"

namespace retort::kernels {

struct AdamwStep {
  double lr, beta1, beta2, eps;
  int64_t t;  // counts steps from 1
};

// What the update writes beside p, all of it: p in bf16, or p's values on a grid in f32 or bf16. Undefined: nothing.
struct WorkingCopy {
  at::Tensor values;
  std::optional<FittedGrid> grid = {};
};
// Whether adamw() writes such a copy of p: on a device with kernels, dense and at 16 bytes, a grid's scales being of groups.
bool writes_copy(const at::Tensor& p, const WorkingCopy& copy);

// Contiguous tensors of one shape; p, m and v change in place, in the rows of the blocks.
struct AdamwTensor {
  at::Tensor p, m, v, gradient;
  RowBlocks blocks;
  double decay = 0;
  WorkingCopy copy = {};  // undefined unless writes_copy()
};

// `verdict` (kernels/gradient_norm.h), where the tensors are: each gradient is multiplied by its factor first, and nothing
// happens where it says no. Undefined: gradients are taken as they are.
void adamw(const std::vector<AdamwTensor>& tensors, const AdamwStep& step, const at::Tensor& verdict = {});

}  // namespace retort::kernels
