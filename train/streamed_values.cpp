#include "train/streamed_values.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "models/shape_of.h"

namespace retort::train {

using models::Parameter;

StreamedValues::StreamedValues(const models::Model& model, models::WeightMap& map, const Owners& owners)
    : values_(models::shape_of(model, at::kMeta)) {
  RETORT_ASSERT(owners.gathered() != nullptr);
  const at::NoGradGuard no_grad;
  const auto mapped = [&](const Parameter& own, const at::Tensor& master) {
    return own.borrowed || master.numel() == 0 ? master : map.apply(own, master.cpu());
  };
  GatheredWeights::Bounds bounds;
  for (Parameter& p : values_->parameters().unique()) {
    const Parameter& own = model.parameters().at(p.name);
    p.input_map = own.input_map;
    p.working = at::empty({0}, own.working.options().dtype(at::kFloat).requires_grad(false));
    if (own.frozen) p.freeze();  // runs are of either
    if (own.codes) continue;
    if (owners.gathered()->has(own))
      bounds[&p] = owners.bounds(own);
    else
      p.working = mapped(own, owners.whole_master(own)).to(p.working.device());
  }
  gathered_ = std::make_unique<GatheredWeights>(*values_, bounds, owners.group(), [&](const Parameter& p) {
    const Parameter& own = model.parameters().at(p.name);
    return mapped(own, own.master);
  });
}

}  // namespace retort::train
