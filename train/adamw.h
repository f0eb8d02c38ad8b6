// AdamW (Loshchilov and Hutter 2019, algorithm 2) in LibTorch's order: epsilon is added after the
// bias-corrected root.
//   p *= 1 - lr * wd;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= lr * (m / (1-b1^t)) / (sqrt(v) / sqrt(1-b2^t) + eps)
// All parameters in one pass over memory (28 bytes an element), every element by the same instructions, so
// the bits depend neither on the thread count nor on the processor. A row of optimizer.cpp's table.
#pragma once

#include "train/optimizer.h"

namespace retort::train {

std::unique_ptr<Optimizer> make_adamw(const OptimizerOptions& options, const models::Parameters& parameters);

}  // namespace retort::train
