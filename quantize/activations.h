// Fake quantization of activations: what a quantized matrix multiplies, rounded to 8 bits with a scale a
// token (the last dimension), gradient straight through. One row a kind:
//   none
//   int8              scale = amax / 127, symmetric: BitNet b1.58's, and W8A8's of compressed-tensors
//   int8_asymmetric   scale = (max - min) / 255 with a zero point, 0 within the range: torchao's
//                     int8dyn-int4
// Computed in f32, given back in x's dtype. Any thread.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>

#include "core/registry.h"

namespace retort::quantize {

using InputMap = std::function<at::Tensor(const at::Tensor&)>;

struct ActivationKind {
  std::string name;
  InputMap map;  // empty: the identity
};
const Registry<ActivationKind>& activation_kinds();

}  // namespace retort::quantize
