// The one place where a weight multiplies an activation: y = x W^T + b in the weight's dtype, with a low-rank
// adapter (Hu et al. 2021, arXiv 2106.09685) y = x W^T + (x A^T) B^T + b. The caller's x is cast to the dtype
// (a bf16 weight makes a bf16 product), and the result has it. Few rows without gradients, as in decoding, go
// to kernels/thin_product.h. Differentiable in x, W, A, B and b. The weight's observer gets x; then its input
// map, where it has one (an activation quantizer), replaces x.
#pragma once

#include <ATen/ATen.h>

#include "models/parameters.h"

namespace retort::models {

struct Linear {
  const Parameter* weight = nullptr;  // [out, in]
  const Parameter* bias = nullptr;    // [out] f32, or none
  const Parameter* lora_a = nullptr;  // [rank, in], or none
  const Parameter* lora_b = nullptr;  // [out, rank]

  at::Tensor operator()(const at::Tensor& x) const;  // [..., in] -> [..., out]
  at::ScalarType dtype() const { return weight->working.scalar_type(); }
};

// Rows of the weight as f32. The gradient is summed in f32 and in token order, then cast to the weight's
// dtype: in bf16 the sum of a frequent token would stop growing.
at::Tensor look_up(const Parameter& embedding, const at::Tensor& ids);

}  // namespace retort::models
