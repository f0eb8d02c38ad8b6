#include "train/gathered_weights.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <tuple>

#include "core/error.h"
#include "kernels/tensor_memory.h"

namespace retort::train {
namespace {

using models::Parameter;

constexpr int64_t kAlignment = 64;  // bytes, as the allocator's: products may follow it

bool holds(const std::vector<const Parameter*>& group, const Parameter& p) {
  return std::ranges::find(group, &p) != group.end();
}

}  // namespace

GatheredWeights::GatheredWeights(models::Model& model, const Bounds& bounds, comm::Comm& comm,
                                 const Rows& rows)
    : model_(*model.weight_groups()), comm_(comm) {
  const std::vector<std::vector<const Parameter*>> groups = model_.groups();
  groups_.resize(groups.size());
  std::map<std::tuple<std::vector<size_t>, at::ScalarType, bool>, size_t> known;
  for (Parameter& p : model.parameters().unique()) {
    std::vector<size_t> readers;
    for (size_t g = 0; g < groups.size(); ++g)
      if (holds(groups[g], p)) readers.push_back(g);
    if (readers.empty() || !bounds.contains(&p)) continue;
    const auto [place, fresh] =
        known.try_emplace({readers, p.working.scalar_type(), p.frozen}, units_.size());  // runs are of either
    if (fresh) {
      units_.emplace_back();
      for (const size_t g : readers) groups_[g].push_back(place->second);
    }
    units_[place->second].members.push_back(&p);
  }
  const at::NoGradGuard no_grad;
  for (Unit& unit : units_) lay_out(unit, bounds, rows);
  model_.on_use([this](int64_t now, int64_t next) { use(now, next); });
}

GatheredWeights::~GatheredWeights() {
  model_.on_use(nullptr);
  for (Unit& unit : units_)
    for (const comm::Pending& one : unit.arrival) try {
        one.wait();  // nothing may write into memory that is gone
      } catch (const std::exception&) {
      }
}

// Members one after another, aligned; a rank's run is from the first row that it owns to the last.
void GatheredWeights::lay_out(Unit& unit, const Bounds& bounds, const Rows& rows_of) {
  const at::TensorOptions options = unit.members.front()->working.options().requires_grad(false);
  const int64_t step = kAlignment / static_cast<int64_t>(options.dtype().itemsize());
  const auto ranks = static_cast<size_t>(comm_.size()), mine = static_cast<size_t>(comm_.rank());
  std::vector<int64_t> begins(ranks, -1), ends(ranks, -1), offsets;
  int64_t elements = 0;
  for (const Parameter* p : unit.members) {
    offsets.push_back(elements);
    const int64_t row = p->numel() / p->shape.front();
    const std::vector<int64_t>& rows = bounds.at(p);
    for (size_t r = 0; r < ranks; ++r) {
      if (rows[r] == rows[r + 1]) continue;
      if (begins[r] < 0) begins[r] = elements + rows[r] * row;
      ends[r] = elements + rows[r + 1] * row;
    }
    elements += (p->numel() + step - 1) / step * step;
  }
  const auto begin = [&](size_t r) { return std::max<int64_t>(begins[r], 0); };
  const auto end = [&](size_t r) { return std::max<int64_t>(ends[r], 0); };
  unit.mine_N = at::zeros({end(mine) - begin(mine)}, options);
  for (size_t i = 0; i < unit.members.size(); ++i) {
    const Parameter& p = *unit.members[i];
    const std::vector<int64_t>& owned = bounds.at(&p);
    std::vector<int64_t> shape = p.shape;
    shape.front() = owned[mine + 1] - owned[mine];
    const int64_t row = p.numel() / p.shape.front();
    const int64_t from = shape.front() > 0 ? offsets[i] + owned[mine] * row - begins[mine] : 0;
    rows_[&p] = unit.mine_N.narrow(0, from, shape.front() * row).view(shape);
    rows_.at(&p).copy_(rows_of(p));
  }
  unit.whole_N = at::empty({elements}, options);
  for (size_t r = 0; r < ranks; ++r) unit.runs.push_back(unit.whole_N.slice(0, begin(r), end(r)));
  for (size_t i = 0; i < unit.members.size(); ++i) {
    Parameter& p = *unit.members[i];
    p.working.set_data(unit.whole_N.narrow(0, offsets[i], p.numel()).view(p.shape));
  }
  kernels::take_memory(unit.whole_N);
}

void GatheredWeights::start(Unit& unit) {
  if (unit.here) return;
  const at::NoGradGuard no_grad;
  kernels::give_memory(unit.whole_N);
  unit.here = true;
  bytes_ += static_cast<int64_t>(unit.whole_N.nbytes());
  brought_bytes_ += static_cast<int64_t>(unit.whole_N.nbytes());
  unit.runs[static_cast<size_t>(comm_.rank())].copy_(unit.mine_N);
  for (int rank = 0; rank < comm_.size(); ++rank)
    if (const at::Tensor& run = unit.runs[static_cast<size_t>(rank)]; run.numel() > 0)
      unit.arrival.push_back(comm_.broadcast(run, rank));
}

void GatheredWeights::release(Unit& unit) {
  for (const comm::Pending& one : unit.arrival) one.wait();
  unit.arrival.clear();
  if (!unit.here) return;
  kernels::take_memory(unit.whole_N);
  unit.here = false;
  bytes_ -= static_cast<int64_t>(unit.whole_N.nbytes());
}

void GatheredWeights::use(int64_t now, int64_t next) {
  if (!apart_) return bring(now, next);
  RETORT_ASSERT(now >= 0);
  if (now == 0) another_pass(true);
  pass(now);
}

// Forward passes alone, each from the first group to the last, which is there between them: a head may be asked for then.
void GatheredWeights::pass_apart(bool apart) {
  apart_ = apart;
  if (!apart) return forget();
  reads_ = std::ssize(groups_) - 1;
  bring(reads_, -1);
}

void GatheredWeights::go_along() {
  const int64_t last = std::ssize(groups_) - 1;
  while (reads_ < last) pass(reads_ + 1);  // what a failure has cut off
  while (another_pass(false))
    for (int64_t group = 0; group <= last; ++group) pass(group);
}

bool GatheredWeights::another_pass(bool mine) const {
  return comm_.reduce(int64_t{mine}, comm::Reduce::kMax) != 0;
}

void GatheredWeights::pass(int64_t group) {
  bring(group, group + 1 < std::ssize(groups_) ? group + 1 : -1);
  reads_ = group;
}

void GatheredWeights::bring(int64_t now, int64_t next) {
  const auto units_of = [&](int64_t group) {
    return group < 0 ? std::vector<size_t>() : groups_[static_cast<size_t>(group)];
  };
  const std::vector<size_t> first = units_of(now), second = units_of(next);
  for (size_t u = 0; u < units_.size(); ++u)
    if (std::ranges::find(first, u) == first.end() && std::ranges::find(second, u) == second.end())
      release(units_[u]);
  for (const size_t u : first) start(units_[u]);
  for (const size_t u : second) start(units_[u]);
  most_bytes_ = std::max(most_bytes_, bytes_);
  for (const size_t u : first) {
    for (const comm::Pending& one : units_[u].arrival) one.wait();
    units_[u].arrival.clear();
  }
}

void GatheredWeights::forget() { bring(-1, -1); }

void GatheredWeights::make_whole() {
  model_.on_use(nullptr);
  forget();
  for (Unit& unit : units_) start(unit);
  for (Unit& unit : units_) {
    for (const comm::Pending& one : unit.arrival) one.wait();
    unit.arrival.clear();
  }
}

int64_t GatheredWeights::bytes_of(int64_t group) const {
  int64_t sum = 0;
  for (const size_t u : groups_[static_cast<size_t>(group)])
    sum += static_cast<int64_t>(units_[u].whole_N.nbytes());
  return sum;
}

}  // namespace retort::train
