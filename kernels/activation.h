// Feed-forward activations, each one pass with its own backward.
//   swiglu(gate, up)   = silu(gate) * up          (Shazeer 2020)
//   geglu(gate, up)    = gelu_tanh(gate) * up
//   relu2glu(gate, up) = max(gate, 0)^2 * up     (squared ReLU: So et al. 2021, arXiv 2109.08668)
//   gelu_tanh(x)       = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
// Same shape and dtype in and out; math in f32. Differentiable. Throws ShapeError.
#pragma once

#include <ATen/ATen.h>

namespace retort::kernels {

at::Tensor swiglu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor geglu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor relu2glu(const at::Tensor& gate_NF, const at::Tensor& up_NF);
at::Tensor gelu_tanh(const at::Tensor& x_NF);

}  // namespace retort::kernels
