#include "models/weight_map.h"

namespace retort::models {
namespace {

bool stays_f32(Role role) {
  return role == Role::kNorm || role == Role::kBias || role == Role::kPositions || role == Role::kScale ||
         role == Role::kObjective;
}

void refresh(Parameter& p, WeightMap& map) {
  if (!p.working.is_alias_of(p.master)) map.apply_into(p, p.master, p.working);
}

}  // namespace

ChainMap::ChainMap(std::vector<std::unique_ptr<WeightMap>> maps) : maps_(std::move(maps)) {}

at::Tensor ChainMap::apply(const Parameter& p, const at::Tensor& x) {
  at::Tensor y = x;
  for (const auto& map : maps_) y = map->apply(p, y);
  return y;
}

at::Tensor ChainMap::pull_back(const Parameter& p, const at::Tensor& gradient) {
  at::Tensor g = gradient;
  for (auto map = maps_.rbegin(); map != maps_.rend(); ++map) g = (*map)->pull_back(p, g);
  return g;
}

bool ChainMap::identity_for(const Parameter& p) const {
  for (const auto& map : maps_)
    if (!map->identity_for(p)) return false;
  return true;
}

void bind_working(Parameters& parameters, WeightMap& map, at::ScalarType matrix_dtype) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) {
    const at::ScalarType dtype = stays_f32(p.role) ? at::kFloat : matrix_dtype;
    const bool shares = dtype == at::kFloat && map.identity_for(p);
    p.working = shares ? p.master.detach() : at::empty_like(p.master, dtype);
    refresh(p, map);
    p.working.requires_grad_();
  }
}

void refresh_working(Parameters& parameters, WeightMap& map) {
  const at::NoGradGuard no_grad;
  for (Parameter& p : parameters.unique()) refresh(p, map);
}

}  // namespace retort::models
