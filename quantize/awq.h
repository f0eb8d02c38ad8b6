// Activation-aware scaling (AWQ, Lin et al. 2023, arXiv 2306.00978): before a group of matrices is rounded,
// the inputs that matter most are divided by s and their columns multiplied by it, so that rounding errs less
// there. The product stays what it was, because 1 / s is folded into what makes the input:
//
//   q, k, v     the norm of attention          o      the rows of v, where each query head has its own
//   gate, up    the norm of feed-forward       down   the rows of up, where the network is gated
//
// s_i = a_i^alpha / sqrt(max a^alpha min a^alpha), a_i the root mean square of input i; alpha is the one of
// 0, 1/20 .. 19/20 whose rounded matrices have the least tr((W - W') H (W - W')^T), W' = round(W s) / s. At
// alpha 0 that is plain rounding, so the measure never gets worse. I in_features, O out_features.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <vector>

#include "models/model.h"
#include "quantize/calibration.h"

namespace retort::quantize {

// s_I, f32. `round`: a matrix [O, I] on its grid.
at::Tensor awq_scales(const InputGroup& group,
                      const std::function<at::Tensor(const models::Parameter&, const at::Tensor&)>& round);

// The parameters that make the group's input and take 1 / s, over all its uses; empty where the architecture
// has none that could.
std::vector<models::Parameter*> input_makers(models::Model& model, const InputGroup& group);

// Multiplies the matrices' columns by s, divides what makes their input, and the group's second moment with
// it. Changes masters.
void fold_scales(models::Model& model, InputGroup& group, const at::Tensor& scales_I);

}  // namespace retort::quantize
