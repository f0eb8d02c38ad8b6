#include "train/divided_model.h"

#include <ATen/core/grad_mode.h>

#include <set>

#include "core/error.h"

namespace retort::train {
namespace {

using models::Parameter;

at::Tensor finite(const Parameter& p, const at::Tensor& values) {
  check<NonFiniteError>(at::isfinite(values).all().item<bool>(),
                        "[train] the weights that the model is compared with must be finite, {} is not",
                        p.name);
  return values;
}

}  // namespace

DividedModel::DividedModel(std::unique_ptr<models::Model> shape, at::ScalarType dtype, comm::Comm& comm,
                           int64_t replicas, at::Device device)
    : model_(std::move(shape)), device_(device) {
  models::IdentityMap identity;
  models::bind_working(model_->parameters(), identity, dtype);
  for (Parameter& p : model_->parameters().unique()) p.freeze();
  owners_ =
      std::make_unique<Owners>(model_->parameters(), comm, Divided::kParameters, model_.get(), replicas);
}

void DividedModel::take(const models::ParameterValues& values) {
  const at::NoGradGuard no_grad;
  std::set<const Parameter*> read;  // in groups
  for (const auto& group : model_->weight_groups()->groups()) read.insert(group.begin(), group.end());
  GatheredWeights::Bounds bounds;
  for (Parameter& p : model_->parameters().unique()) {
    const at::TensorOptions there = p.working.options().device(device_).requires_grad(false);
    const bool divides = read.contains(&p) && !p.codes;
    if (divides) bounds[&p] = owners_->bounds(p);
    p.placement.device = device_;
    if (divides || p.codes)
      p.working = at::empty({0}, there);
    else
      p.working = at::empty(p.shape, there).copy_(finite(p, values(p)));
    p.master = p.working.detach();
  }
  gathered_ = std::make_unique<GatheredWeights>(*model_, bounds, owners_->group(), [&](const Parameter& p) {
    const models::RowBlocks& rows = p.placement.owned;
    std::vector<int64_t> none = p.shape;
    none.front() = 0;
    return rows.begin < rows.end ? finite(p, owned(p, values(p))) : at::empty(none, at::kFloat);
  });
}

}  // namespace retort::train
