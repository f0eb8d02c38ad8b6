#include "quantize/packing_map.h"

#include <ATen/core/grad_mode.h>

#include "formats/finite_values.h"

namespace retort::quantize {

formats::PackedTensor PackingMap::pack(const models::Parameter& p) const {
  const at::NoGradGuard no_grad;
  const Grid* grid = enabled() ? grid_of(p) : nullptr;
  if (grid == nullptr) return formats::pack(formats::GgmlType::F32, p.master);
  const Quantized quantized = quantize(p);
  formats::check_scales("[export]", p.name, quantized.scales.scale);
  return grid->pack(quantized);
}

}  // namespace retort::quantize
