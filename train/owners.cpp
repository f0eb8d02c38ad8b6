#include "train/owners.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/host_tensor.h"

namespace retort::train {
namespace {

using models::Parameter, models::RowBlocks;

// The first row of the block that holds element `wanted` of p, or that begins there; an end where it lies outside.
int64_t row_at(const Parameter& p, const RowBlocks& blocks, int64_t wanted) {
  if (wanted <= 0) return 0;
  if (wanted >= p.numel()) return p.shape.front();
  const int64_t row = p.numel() / p.shape.front();
  return wanted / row / blocks.step * blocks.step;
}

}  // namespace

Owners::Owners(const Trained& trained, comm::Comm& comm, bool divided)
    : comm_(comm), divided_(divided && comm.size() > 1), blocks_(static_cast<size_t>(comm.size())) {
  if (!divided_) return;
  int64_t total = 0, before = 0;
  for (Parameter* p : trained.all()) {
    if (p->frozen) continue;
    all_.push_back(p);
    total += p->numel();
  }
  for (Parameter* p : all_) {
    RowBlocks& owned = p->placement.owned;
    RETORT_ASSERT(p->placement.owns_all(p->shape));
    std::vector<int64_t>& bounds = bounds_[p];
    for (int64_t rank = 0; rank <= comm_.size(); ++rank)
      bounds.push_back(row_at(*p, owned, total * rank / comm_.size() - before));
    bounds.back() = p->shape.front();
    for (size_t rank = 0; rank < blocks_.size(); ++rank)
      blocks_[rank] += RowBlocks{bounds[rank], bounds[rank + 1], owned.step}.count();
    before += p->numel();
    const auto mine = static_cast<size_t>(comm_.rank());
    owned.begin = bounds[mine], owned.end = bounds[mine + 1];
  }
}

std::vector<double> Owners::of_all_blocks(const std::vector<double>& mine) const {
  if (!divided_) return mine;
  RETORT_ASSERT(std::ssize(mine) == blocks_[static_cast<size_t>(comm_.rank())]);
  const int64_t most = *std::max_element(blocks_.begin(), blocks_.end());
  const at::Tensor all_RB = at::zeros({comm_.size(), most}, at::kDouble),
                   mine_B = at::zeros({most}, at::kDouble);
  std::ranges::copy(mine, host_values<double>(mine_B).begin());
  comm_.all_gather(all_RB, mine_B).wait();
  std::vector<double> out;
  for (int64_t rank = 0; rank < comm_.size(); ++rank) {
    const auto of_rank = host_values<const double>(all_RB[rank])
                             .first(static_cast<size_t>(blocks_[static_cast<size_t>(rank)]));
    out.insert(out.end(), of_rank.begin(), of_rank.end());
  }
  return out;
}

void Owners::share_masters() const {
  const at::NoGradGuard no_grad;
  std::vector<comm::Pending> under_way;
  for (Parameter* p : all_) {
    const std::vector<int64_t>& bounds = bounds_.at(p);
    for (int rank = 0; rank < comm_.size(); ++rank) {
      const auto r = static_cast<size_t>(rank);
      if (bounds[r] < bounds[r + 1])
        under_way.push_back(comm_.broadcast(p->master.slice(0, bounds[r], bounds[r + 1]), rank));
    }
  }
  for (const comm::Pending& one : under_way) one.wait();
}

at::Tensor Owners::gather(const Parameter& p, const at::Tensor& rows) const {
  if (!divided_ || p.frozen) return rows;
  const at::NoGradGuard no_grad;
  const std::vector<int64_t>& bounds = bounds_.at(&p);
  const auto mine = static_cast<size_t>(comm_.rank());
  at::Tensor whole = comm_.rank() == 0 ? at::empty(p.shape, rows.options()) : at::Tensor();
  for (int rank = 0; rank < comm_.size(); ++rank) {
    const auto r = static_cast<size_t>(rank);
    if (bounds[r] == bounds[r + 1]) continue;
    std::vector<int64_t> shape = p.shape;
    shape.front() = bounds[r + 1] - bounds[r];
    at::Tensor part = r == mine           ? rows
                      : comm_.rank() == 0 ? whole.slice(0, bounds[r], bounds[r + 1])
                                          : at::empty(shape, rows.options());
    if (comm_.rank() == 0 && r == mine) whole.slice(0, bounds[r], bounds[r + 1]).copy_(rows);
    if (rank > 0) comm_.broadcast(part, rank).wait();
  }
  return whole;
}

at::Tensor owned(const Parameter& p, const at::Tensor& whole) {
  return whole.slice(0, p.placement.owned.begin, p.placement.owned.end);
}

}  // namespace retort::train
