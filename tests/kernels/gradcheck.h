// Compares an f32 (or bf16) operation with its fp64 oracle: the value and every gradient. The tolerance is
// computed, not felt: twice the error of the plain composite in the same dtype, and never less than two units
// in the last place of the largest element (a plain version may be exact by luck), or of `terms`, the largest
// magnitude of what cancels in the gradients.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <functional>
#include <string>
#include <vector>

namespace retort::testing {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<at::Tensor(const Tensors&)>;

struct Outcome {
  at::Tensor value;
  Tensors gradients;  // one an input
};

// Deterministic normal numbers, f64 but exactly representable in f32 and bf16.
at::Tensor normal(at::IntArrayRef shape, uint64_t seed, double std = 1.0);
// Labels in [0, vocabulary); every `ignore_every`-th is -100 (0: none).
at::Tensor random_labels(int64_t rows, int64_t vocabulary, uint64_t seed, int64_t ignore_every = 0);

// Value, and gradients of sum(value * direction), with all inputs cast to `dtype`.
Outcome run(const Operation& operation, const Tensors& inputs, at::ScalarType dtype);

// max |a - b| in f64; infinity on NaN or unequal shapes.
double worst_error(const at::Tensor& a, const at::Tensor& b);

void expect_as_good(const std::string& what, const Operation& ours, const Operation& plain,
                    const Tensors& inputs, at::ScalarType dtype = at::kFloat, double terms = 0.0);

// The same bits with one thread and with more: reductions must not follow the division of work.
void expect_thread_independent(const Operation& operation, const Tensors& inputs);

}  // namespace retort::testing
