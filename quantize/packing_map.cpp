#include "quantize/packing_map.h"

#include <ATen/core/grad_mode.h>

namespace retort::quantize {

formats::PackedTensor PackingMap::pack(const models::Parameter& p) const {
  const at::NoGradGuard no_grad;
  const Grid* grid = enabled() ? grid_of(p) : nullptr;
  return grid == nullptr ? formats::pack(formats::GgmlType::F32, p.master) : grid->pack(quantize(p));
}

}  // namespace retort::quantize
