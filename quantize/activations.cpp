#include "quantize/activations.h"

#include "kernels/fake_quantize.h"

namespace retort::quantize {
namespace {

constexpr double kLeastScale = 1e-30;  // of a token of zeros

at::Tensor symmetric(const at::Tensor& x) {
  const at::Tensor v = x.to(at::kFloat);
  const at::Tensor scale = (v.abs().amax(-1, /*keepdim=*/true) / 127.0).clamp_min(kLeastScale);
  return (v / scale).round().clamp(-128.0, 127.0).mul(scale).to(x.scalar_type());
}

at::Tensor asymmetric(const at::Tensor& x) {
  const at::Tensor v = x.to(at::kFloat);
  const at::Tensor least = v.amin(-1, /*keepdim=*/true).clamp_max(0.0),
                   most = v.amax(-1, true).clamp_min(0.0);
  const at::Tensor scale = ((most - least) / 255.0).clamp_min(kLeastScale);
  const at::Tensor zero = (-128.0 - (least / scale).round()).clamp(-128.0, 127.0);
  const at::Tensor codes = ((v / scale).round() + zero).clamp(-128.0, 127.0);
  return ((codes - zero) * scale).to(x.scalar_type());
}

}  // namespace

const Registry<ActivationKind>& activation_kinds() {
  const auto through = [](at::Tensor (*round)(const at::Tensor&)) {
    return [round](const at::Tensor& x) { return kernels::fake_quantize(x, round); };
  };
  static const Registry<ActivationKind> table(
      "activation grid",
      {{"none", {}}, {"int8", through(symmetric)}, {"int8_asymmetric", through(asymmetric)}});
  return table;
}

}  // namespace retort::quantize
