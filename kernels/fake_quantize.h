// Fake quantization with the straight-through gradient: forward is the value that the file will hold,
// backward passes the gradient unchanged (the block formulas of Q8_0 and Q4_0 clip nothing worth clipping).
//   y = dequantize(quantize(x)) on blocks of the last dimension
// `blocks` formulas live in formats/ggml_blocks; kernels may not include formats, so this kernel takes the
// rounding as a function and owns the autograd node. x f32. Throws what `round` throws.
#pragma once

#include <ATen/ATen.h>

#include <functional>

namespace retort::kernels {

at::Tensor fake_quantize(const at::Tensor& x, const std::function<at::Tensor(const at::Tensor&)>& round);

}  // namespace retort::kernels
