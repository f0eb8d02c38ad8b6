// Fake quantization of activations with the straight-through gradient: y = round(x), and backward passes the
// gradient unchanged. The caller rounds (quantize/activations.cpp); this is the autograd node. x has any
// dtype that `round` takes. Throws what `round` throws, and ShapeError when it changes shape or dtype.
#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace retort::kernels {

at::Tensor fake_quantize(const at::Tensor& x, const std::function<at::Tensor(const at::Tensor&)>& round);

}  // namespace retort::kernels
