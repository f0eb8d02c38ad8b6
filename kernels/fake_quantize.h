// Fake quantization of activations with the straight-through gradient: y = round(x), and backward passes the
// gradient unchanged. The rounding is the caller's (quantize/activations.cpp); this is its autograd node. x
// of any dtype that `round` takes. Throws what `round` throws, ShapeError when it reshapes.
#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace retort::kernels {

at::Tensor fake_quantize(const at::Tensor& x, const std::function<at::Tensor(const at::Tensor&)>& round);

}  // namespace retort::kernels
