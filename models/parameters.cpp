#include "models/parameters.h"

#include "core/error.h"
#include "core/nearest.h"
#include "core/shape.h"
#include "models/linear.h"

namespace retort::models {

void Parameter::freeze() {
  frozen = true;
  working.requires_grad_(false);
}

void Parameter::borrow() {
  freeze();
  borrowed = true;
}

void Parameter::keep_as(std::shared_ptr<const Codes> kept) {
  check<InternalError>(frozen, "[parameters] {} must be frozen to be kept as codes", name);
  codes = std::move(kept);
  master = at::empty({0}, master.options());
  working = at::empty({0}, working.options());
}

void Parameters::declare(std::string name, Parameter& p) {
  check<InternalError>(!contains(name), "[parameters] {} is declared twice", name);
  p.uses.push_back(name);
  adapters_.emplace(name, LowRank());
  by_name_.emplace(std::move(name), &p);
}

Parameter& Parameters::add(std::string name, at::IntArrayRef shape, Role role, int64_t residual_depth) {
  check<InternalError>(!contains(name), "[parameters] {} is declared twice", name);
  check(!shape.empty(), "[parameters] {} must have at least one dimension", name);
  Parameter& p = unique_.emplace_back();
  p.name = std::move(name);
  p.role = role;
  p.shape = shape.vec();
  p.placement = Placement::whole(shape, device_);
  p.residual_depth = residual_depth;
  p.master = at::empty(shape, at::TensorOptions(at::kFloat).device(p.placement.device));
  p.working = p.master.detach().requires_grad_();
  declare(p.name, p);
  return p;
}

void Parameters::alias(std::string alias, std::string_view target) { declare(std::move(alias), at(target)); }

const Parameter& Parameters::at(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return *found->second;
  std::vector<std::string> known;
  for (const auto& [key, p] : by_name_) known.push_back(key);
  fail<InternalError>("[parameters] there is no parameter \"{}\"{}", name, did_you_mean(name, known));
}

Parameter& Parameters::at(std::string_view name) {
  return const_cast<Parameter&>(static_cast<const Parameters*>(this)->at(name));
}

bool Parameters::contains(std::string_view name) const { return by_name_.find(name) != by_name_.end(); }

void Parameters::join(std::string_view use, const LowRank& adapter) {
  const Parameter& weight = at(use);
  const int64_t rank = adapter.a->shape.at(0);
  check_shape("adapter", "A", adapter.a->master, {rank, weight.shape.at(1)});
  check_shape("adapter", "B", adapter.b->master, {weight.shape[0], rank});
  if (adapter.magnitude != nullptr)
    check_shape("adapter", "magnitude", adapter.magnitude->master,
                {weight.shape[has_column_lengths(weight, use) ? 1 : 0]});
  LowRank& place = adapters_.find(use)->second;
  check<InternalError>(!place, "[parameters] {} has an adapter already", use);
  place = adapter;
}

const LowRank& Parameters::adapter(std::string_view use) const {
  at(use);  // throws for an unknown name
  return adapters_.find(use)->second;
}

bool Parameters::has_adapters() const {
  for (const auto& [use, adapter] : adapters_)
    if (adapter) return true;
  return false;
}

bool Parameters::is_tied_head(std::string_view name) const {
  const Parameter& p = at(name);
  return p.role == Role::kEmbedding && p.name != name;
}

int64_t Parameters::stored() const {
  int64_t total = 0;
  for (const Parameter& p : unique_)
    if (p.role != Role::kScale) total += p.numel();
  return total;
}

int64_t Parameters::expanded() const {
  int64_t total = 0;
  for (const Parameter& p : unique_) total += p.numel() * p.copies();
  return total;
}

}  // namespace retort::models
