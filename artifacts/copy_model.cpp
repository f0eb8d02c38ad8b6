#include "artifacts/copy_model.h"

#include <ATen/core/grad_mode.h>

#include "models/adapters.h"

namespace retort::artifacts {

std::unique_ptr<models::Model> copy_of(const models::Model& model, const models::ParameterValues& values) {
  const at::NoGradGuard no_grad;
  auto copy = models::same_shape(model);
  for (models::Parameter& p : copy->parameters().unique()) {
    const models::Parameter& own = model.parameters().at(p.name);
    if (!p.borrowed) {
      p.master.copy_(values ? values(own) : own.master);
    } else if (values && !p.codes) {
      p.master = models::f32_of(values, own).clone();
      p.working = p.master.detach();
    }
  }
  return copy;
}

std::unique_ptr<models::Model> f32_copy(const models::Model& model, models::WeightMap& map) {
  const at::NoGradGuard no_grad;
  auto copy = models::same_shape(model);
  for (models::Parameter& p : copy->parameters().unique()) {
    const models::Parameter& own = model.parameters().at(p.name);
    if (!p.borrowed) p.master.copy_(map.apply(own, own.master.cpu()));
    p.input_map = own.input_map;
  }
  models::IdentityMap identity;
  models::bind_working(copy->parameters(), identity, at::kFloat);
  return copy;
}

}  // namespace retort::artifacts
