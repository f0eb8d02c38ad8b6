// AdamW (kernels/adamw.h has the formula): which parameters decay, and the names and shapes of its state. A
// frozen parameter has no state. A row of optimizer.cpp's table.
#pragma once

#include "train/optimizer.h"

namespace retort::train {

std::unique_ptr<Optimizer> make_adamw(const OptimizerOptions& options, const Trained& trained);

}  // namespace retort::train
