#include "train/owners.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/host_tensor.h"
#include "models/gradient_buckets.h"

namespace retort::train {
namespace {

using models::Parameter, models::RowBlocks;

constexpr const char* kDivisions[] = {"none", "optimizer", "gradients", "parameters"};  // as Divided

// The weight whose rows a learned scale goes with: "NAME_scale" is NAME's (quantize/quantize_map.h).
const Parameter* weight_of(const Parameter& scale, const std::vector<Parameter*>& all) {
  if (scale.role != models::Role::kScale) return nullptr;
  const auto found =
      std::ranges::find_if(all, [&](const Parameter* p) { return scale.name == p->name + "_scale"; });
  return found == all.end() ? nullptr : *found;
}

RowBlocks rows_of(const std::vector<int64_t>& bounds, size_t rank, const RowBlocks& blocks) {
  return {bounds[rank], bounds[rank + 1], blocks.step};
}

// Its axes of data: `replicas` groups, each of which divides all of it.
comm::Mesh data_mesh(comm::Comm& comm, int64_t replicas) {
  RETORT_ASSERT(replicas >= 1 && comm.size() % replicas == 0);
  return {comm, {1, replicas, comm.size() / replicas, 1, 1}};
}

// Which are not asked for where this rank owns no rows.
at::Tensor own_rows(const Parameter& p, const Owners::Values& values) {
  const RowBlocks& rows = p.placement.owned;
  if (rows.begin < rows.end) return owned(p, values(p));
  std::vector<int64_t> none = p.shape;
  none.front() = 0;
  return at::empty(none, at::kFloat);
}

at::Tensor f32_copy(const at::Tensor& values) { return at::empty(values.sizes(), at::kFloat).copy_(values); }

bool is_copy(const Parameter& p) { return !p.codes && !p.working.is_alias_of(p.master); }

}  // namespace

std::vector<std::string> division_names() { return {std::begin(kDivisions), std::end(kDivisions)}; }

Divided division(const std::string& name) {
  const auto found = std::ranges::find(kDivisions, name);
  RETORT_ASSERT(found != std::end(kDivisions));
  return static_cast<Divided>(found - std::begin(kDivisions));
}

Owners::Owners(const Trained& trained, comm::Comm& comm, Divided what, models::Model* model, int64_t replicas)
    : mesh_(data_mesh(comm, replicas)),
      comm_(mesh_.axis(comm::Axis::kShards)),
      what_(comm_.size() > 1 ? what : Divided::kNothing),
      model_(model),
      blocks_(static_cast<size_t>(comm_.size())) {
  if (!divided()) return;
  for (Parameter* p : trained.all())
    if (!p->frozen) all_.push_back(p);
  cut(all_);
  for (const Parameter* p : all_)
    for (size_t rank = 0; rank < blocks_.size(); ++rank)
      blocks_[rank] += rows_of(bounds_.at(p), rank, p->placement.owned).count();
  if (what_ == Divided::kParameters) {
    RETORT_ASSERT(model_ != nullptr && model_->weight_groups() != nullptr);
    const std::vector<std::vector<const Parameter*>> groups = model_->weight_groups()->groups();
    for (Parameter& p : model_->parameters().unique())
      if (p.frozen && !p.codes && std::ranges::any_of(groups, [&](const auto& group) {
            return std::ranges::find(group, &p) != group.end();
          }))
        frozen_.push_back(&p);
    cut(frozen_);
  }
  const auto mine = static_cast<size_t>(comm_.rank());
  for (const auto* parameters : {&all_, &frozen_})
    for (Parameter* p : *parameters) p->placement.owned = rows_of(bounds_.at(p), mine, p->placement.owned);
}

// Gives each rank a run of these.
void Owners::cut(const std::vector<Parameter*>& parameters) {
  int64_t total = 0, before = 0;
  for (const Parameter* p : parameters)
    if (weight_of(*p, parameters) == nullptr) total += p->numel();
  for (const Parameter* p : parameters) {
    RETORT_ASSERT(p->placement.owns_all(p->shape));
    if (weight_of(*p, parameters) != nullptr) continue;
    std::vector<int64_t>& bounds = bounds_[p];
    for (int64_t rank = 0; rank <= comm_.size(); ++rank)
      bounds.push_back(models::row_at(p->placement.owned, p->numel() / p->shape.front(),
                                      total * rank / comm_.size() - before));
    bounds.back() = p->shape.front();
    before += p->numel();
  }
  for (const Parameter* p : parameters)
    if (const Parameter* weight = weight_of(*p, parameters)) bounds_[p] = bounds_.at(weight);
}

std::vector<double> Owners::of_all_blocks(const std::vector<double>& mine) const {
  if (!divided()) return mine;
  RETORT_ASSERT(std::ssize(mine) == blocks_[static_cast<size_t>(comm_.rank())]);
  const int64_t most = *std::max_element(blocks_.begin(), blocks_.end());
  const at::Tensor all_RB = at::zeros({comm_.size(), most}, at::kDouble),
                   mine_B = at::zeros({most}, at::kDouble);
  std::ranges::copy(mine, host_values<double>(mine_B).begin());
  comm_.all_gather(all_RB, mine_B).wait();
  const std::span<const double> values = host_values<const double>(all_RB);
  std::vector<int64_t> next(blocks_.size());  // block of each rank
  std::vector<double> out;
  for (const Parameter* p : all_)
    for (size_t rank = 0; rank < blocks_.size(); ++rank) {
      const int64_t first = static_cast<int64_t>(rank) * most + next[rank],
                    count = rows_of(bounds_.at(p), rank, p->placement.owned).count();
      for (int64_t b = first; b < first + count; ++b) out.push_back(values[static_cast<size_t>(b)]);
      next[rank] += count;
    }
  return out;
}

// Each owner's rows of a tensor of p's shape, to all.
std::vector<comm::Pending> Owners::share(const Parameter& p, const at::Tensor& whole) const {
  std::vector<comm::Pending> out;
  const std::vector<int64_t>& bounds = bounds_.at(&p);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    if (bounds[r] < bounds[r + 1])
      out.push_back(comm_.broadcast(whole.slice(0, bounds[r], bounds[r + 1]), rank));
  }
  return out;
}

bool Owners::has_rows_alone(const Parameter& p) const {
  if (gathered_ && gathered_->has(p)) return true;
  return rows_alone_ && !p.frozen && bounds_.contains(&p) && is_copy(p);
}

// This rank's rows of gathered working weights.
void Owners::make_working(const Parameter& p, models::WeightMap& map) const {
  if (!one_.contains(&p) && p.master.numel() > 0) gathered_->rows(p).copy_(map.apply(p, p.master));
}

void Owners::refresh(models::Parameters& model, models::WeightMap& map) const {
  const at::NoGradGuard no_grad;
  std::vector<comm::Pending> under_way;
  if (gathered_) gathered_->forget();
  for (const Parameter* p : all_) {
    if (gathered_ && gathered_->has(*p)) {
      make_working(*p, map);
      continue;
    }
    const bool apart = has_rows_alone(*p);
    const at::Tensor whole = apart ? p->working.detach() : p->master;
    if (apart && p->master.numel() > 0) owned(*p, whole).copy_(map.apply(*p, p->master));
    std::ranges::move(share(*p, whole), std::back_inserter(under_way));
  }
  for (const comm::Pending& one : under_way) one.wait();
  if (!rows_alone_) models::refresh_trained(model, map);
}

void Owners::refresh_all(models::Parameters& model, models::WeightMap& map) const {
  if (!rows_alone_) return models::refresh_working(model, map);
  refresh(model, map);
  const at::NoGradGuard no_grad;
  for (const Parameter& p : model.unique()) {
    if (!p.frozen) continue;
    if (gathered_ && gathered_->has(p))
      make_working(p, map);
    else if (is_copy(p))
      map.apply_into(p, p.master, p.working);
  }
}

void Owners::take_weights(const Values& values) {
  RETORT_ASSERT(what_ == Divided::kParameters && !rows_alone_);
  const at::NoGradGuard no_grad;
  std::set<const Parameter*> read;  // in groups
  for (const auto& group : model_->weight_groups()->groups()) read.insert(group.begin(), group.end());
  for (Parameter& p : model_->parameters().unique()) {
    const bool one = p.working.is_alias_of(p.master), divides = bounds_.contains(&p) && read.contains(&p);
    const at::TensorOptions host = p.working.options().device(at::kCPU).requires_grad(false);
    if (divides && one) one_.insert(&p);
    p.placement.device = at::kCPU;
    if (p.codes || one_.contains(&p))
      p.master = at::empty({0}, at::kFloat);
    else
      p.master = divides ? f32_copy(own_rows(p, values)) : f32_copy(values(p));
    if (p.codes || divides)
      p.working = at::empty({0}, host);
    else
      p.working = one ? p.master.detach() : p.master.to(host);
    p.working.requires_grad_(!p.frozen);
  }
  rows_alone_ = true;
  gathered_ = std::make_unique<GatheredWeights>(*model_, bounds_, comm_, [&](const Parameter& p) {
    return one_.contains(&p) ? own_rows(p, values) : p.master;
  });
  for (Parameter& p : model_->parameters().unique())
    if (one_.contains(&p)) p.master = gathered_->rows(p);
}

void Owners::divide_weights() {
  if (!divides_gradients() || rows_alone_) return;
  const at::NoGradGuard no_grad;
  rows_alone_ = true;
  if (what_ == Divided::kParameters) {
    one_.clear();
    for (const auto* parameters : {&all_, &frozen_})
      for (const Parameter* p : *parameters)
        if (p->working.is_alias_of(p->master)) one_.insert(p);
    gathered_ = std::make_unique<GatheredWeights>(
        *model_, bounds_, comm_, [](const Parameter& p) { return owned(p, p.working.detach()); });
  }
  for (const auto* parameters : {&all_, &frozen_})
    for (Parameter* p : *parameters) {
      if (!has_rows_alone(*p)) continue;
      const bool one = gathered_ && gathered_->has(*p) && one_.contains(p);
      p->master = one ? gathered_->rows(*p) : owned(*p, p->master).clone();
    }
}

void Owners::make_weights_whole() {
  const at::NoGradGuard no_grad;
  if (gathered_) gathered_->make_whole();
  for (const auto* parameters : {&all_, &frozen_})
    for (Parameter* p : *parameters) {
      if (!has_rows_alone(*p)) continue;
      if (gathered_ && gathered_->has(*p) && one_.contains(p)) {
        p->master = p->working.detach();
        continue;
      }
      p->master = whole_master(*p);
    }
  gathered_.reset();
  rows_alone_ = false;
}

at::Tensor Owners::whole_master(const Parameter& p) const {
  if (!has_rows_alone(p)) return p.master;
  const at::NoGradGuard no_grad;
  const at::Tensor whole = at::empty(p.shape, p.master.options());
  owned(p, whole).copy_(p.master);
  for (const comm::Pending& one : share(p, whole)) one.wait();
  return whole;
}

at::Tensor owned(const Parameter& p, const at::Tensor& tensor) {
  const RowBlocks& rows = p.placement.owned;
  if (tensor.size(0) == rows.end - rows.begin) return tensor;
  return tensor.slice(0, rows.begin, rows.end);
}

}  // namespace retort::train
