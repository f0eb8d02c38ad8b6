#include "models/shape_of.h"

#include "models/family.h"

namespace retort::models {

std::unique_ptr<Model> shape_of(const Model& model, at::Device device) {
  auto out = make_model(model.spec(), device);
  Parameters& parameters = out->parameters();
  for (const Parameter& p : model.parameters().unique()) {
    if (p.role == Role::kScale) continue;
    if (!parameters.contains(p.name)) parameters.add(p.name, p.shape, p.role, p.residual_depth);
    for (const std::string& use : p.uses)
      if (!parameters.contains(use)) parameters.alias(use, p.name);
    if (!p.borrowed) continue;
    Parameter& own = parameters.at(p.name);
    own.borrow();
    if (p.codes) {
      own.keep_as(p.codes);
    } else {
      own.master = p.master;
      own.working = p.master.detach();
    }
  }
  for (const Parameter& p : model.parameters().unique())
    for (const std::string& use : p.uses) {
      const LowRank& from = model.parameters().adapter(use);
      if (!from || parameters.adapter(use)) continue;
      const auto own = [&](const Parameter* q) { return q ? &parameters.at(q->name) : nullptr; };
      parameters.join(use, {own(from.a), own(from.b), own(from.magnitude), from.scale});
    }
  return out;
}

}  // namespace retort::models
