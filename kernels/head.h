// The output projection of a language model, a matrix and a cap: logits = softcap(h W^T), with
// softcap(z) = c tanh(z / c), and z itself where c is 0. D width, V vocabulary.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

struct Head {
  at::Tensor weight_VD;  // f32 or bf16
  double softcap = 0.0;

  Head() = default;
  Head(at::Tensor weight, double cap = 0.0) : weight_VD(std::move(weight)), softcap(cap) {}

  // Of hidden states [..., D], all at once. The product is in the weight's dtype, that of few rows without gradients
  // in f32 (kernels/thin_product.h); `dtype` is that of the result, and of the cap.
  at::Tensor logits(const at::Tensor& h, at::ScalarType dtype = at::kFloat) const;
  void cap(at::Tensor& products) const;  // in place, in their own dtype
};

}  // namespace retort::kernels
