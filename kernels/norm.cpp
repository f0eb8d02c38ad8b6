#include "kernels/norm.h"

#include "core/shape.h"
#include "kernels/reference.h"

namespace retort::kernels {

at::Tensor rms_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, double eps, bool unit_offset) {
  check_shape("rms_norm", "weight_D", weight_D, {x_ND.size(-1)});
  return reference::rms_norm(x_ND, weight_D, eps, unit_offset);
}

at::Tensor layer_norm(const at::Tensor& x_ND, const at::Tensor& weight_D, const at::Tensor& bias_D, double eps) {
  check_shape("layer_norm", "weight_D", weight_D, {x_ND.size(-1)});
  check_shape("layer_norm", "bias_D", bias_D, {x_ND.size(-1)});
  return reference::layer_norm(x_ND, weight_D, bias_D, eps);
}

}  // namespace retort::kernels
