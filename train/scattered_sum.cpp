#include "train/scattered_sum.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/error.h"

namespace retort::train {
namespace {

constexpr size_t kUnderWay = 2;  // buckets: one that is sent while the next is packed

int64_t elements_of_row(const models::Parameter& p) { return p.numel() / p.shape.front(); }

}  // namespace

ScatteredSum::ScatteredSum(std::vector<const models::Parameter*> parameters, const Owners& owners,
                           int64_t micro_batches, int64_t bucket_bytes)
    : parameters_(std::move(parameters)),
      owners_(owners),
      comm_(owners.group()),
      run_(micro_batches * comm_.size()) {
  RETORT_ASSERT(owners_.divides_gradients());
  fill_buckets(bucket_bytes);
}

// From the last parameter to the first, as backward completes them; each joins the newest bucket of its dtype.
void ScatteredSum::fill_buckets(int64_t bucket_bytes) {
  std::map<at::ScalarType, size_t> newest;
  for (size_t i = parameters_.size(); i-- > 0;) {
    const models::Parameter& p = *parameters_[i];
    if (p.role == models::Role::kScale) continue;
    const at::ScalarType dtype = p.working.scalar_type();
    const auto item = static_cast<int64_t>(c10::elementSize(dtype));
    const auto open = newest.find(dtype);
    if (open == newest.end() || buckets_[open->second].elements * item >= bucket_bytes) {
      newest[dtype] = buckets_.size();
      buckets_.emplace_back().dtype = dtype;
    }
    Bucket& bucket = buckets_[newest.at(dtype)];
    bucket.members.push_back(i);
    bucket.elements += p.numel();
  }
  std::ranges::sort(buckets_, std::ranges::greater(), [](const Bucket& b) { return b.members.back(); });
  place_.assign(parameters_.size(), {buckets_.size(), 0});
  for (size_t b = 0; b < buckets_.size(); ++b) {
    buckets_[b].bounds = bounds_of(buckets_[b]);
    buckets_[b].sum = comm::TreeSum<at::Tensor, Add>(owners_.replica() * run_);
    for (size_t m = 0; m < buckets_[b].members.size(); ++m) place_[buckets_[b].members[m]] = {b, m};
  }
}

int64_t ScatteredSum::row_elements(size_t i, int rank) const {
  const std::vector<int64_t>& rows = owners_.bounds(*parameters_[i]);
  const auto r = static_cast<size_t>(rank);
  return (rows[r + 1] - rows[r]) * elements_of_row(*parameters_[i]);
}

std::vector<int64_t> ScatteredSum::bounds_of(const Bucket& bucket) const {
  std::vector<int64_t> out{0};
  for (int rank = 0; rank < comm_.size(); ++rank) {
    out.push_back(out.back());
    for (const size_t i : bucket.members) out.back() += row_elements(i, rank);
  }
  return out;
}

void ScatteredSum::begin_step() {
  for (const Flight& flight : flights_) flight.arrival.wait();
  flights_.clear();
  started_ = 0;
  for (Bucket& bucket : buckets_) {
    bucket.sum.clear();
    bucket.total_N.reset();
    bucket.gradients.assign(bucket.members.size(), {});
    bucket.missing = bucket.members.size();
  }
}

void ScatteredSum::add(size_t i, at::Tensor gradient) {
  const auto [b, member] = place_[i];
  if (b == buckets_.size()) {
    RETORT_ASSERT(!gradient.defined());
    return;
  }
  Bucket& bucket = buckets_[b];
  RETORT_ASSERT(bucket.missing > 0 && (!gradient.defined() || gradient.scalar_type() == bucket.dtype));
  bucket.gradients[member] = std::move(gradient);
  --bucket.missing;
  for (; started_ < buckets_.size() && buckets_[started_].missing == 0; ++started_) start(buckets_[started_]);
  if (started_ < buckets_.size()) return;
  started_ = 0;  // the micro-batch is complete
  for (Bucket& one : buckets_) one.missing = one.members.size();
}

// Rank by rank what it owns of each member. One member has its rows in that order.
at::Tensor ScatteredSum::pack(const Bucket& bucket) const {
  const at::Tensor& first = bucket.gradients.front();
  if (bucket.members.size() == 1 && first.defined()) return first.contiguous().view(-1);
  const at::Device device = parameters_[bucket.members.front()]->working.device();
  const at::Tensor packed_N = at::empty({bucket.elements}, at::TensorOptions(device).dtype(bucket.dtype));
  int64_t next = 0;
  for (int rank = 0; rank < comm_.size(); ++rank)
    for (size_t m = 0; m < bucket.members.size(); ++m) {
      const size_t i = bucket.members[m];
      const std::vector<int64_t>& rows = owners_.bounds(*parameters_[i]);
      const auto r = static_cast<size_t>(rank);
      const at::Tensor& gradient = bucket.gradients[m];
      const int64_t count = row_elements(i, rank);
      const at::Tensor to = packed_N.narrow(0, next, count);
      if (gradient.defined()) {
        const at::Tensor own = gradient.slice(0, rows[r], rows[r + 1]);
        to.view(own.sizes()).copy_(own);
      } else {
        to.zero_();
      }
      next += count;
    }
  return packed_N;
}

void ScatteredSum::start(Bucket& bucket) {
  while (flights_.size() >= kUnderWay) land();
  const at::Tensor packed_N = pack(bucket);
  bucket.gradients.assign(bucket.members.size(), {});
  const auto mine = static_cast<size_t>(comm_.rank());
  std::vector<at::Tensor> received;
  for (int peer = 0; peer < comm_.size(); ++peer)
    received.push_back(at::empty({bucket.bounds[mine + 1] - bucket.bounds[mine]}, packed_N.options()));
  comm::Pending arrival = comm_.all_to_all(received, packed_N, bucket.bounds);
  flights_.push_back({bucket, std::move(received), std::move(arrival)});
}

// A turn's micro-batches are those of the ranks in their order.
void ScatteredSum::land() {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  flight.arrival.wait();
  for (at::Tensor& leaf : flight.received) flight.bucket.sum.push(leaf.to(at::kFloat));
}

// The tree over all micro-batches, of which each group has the subtrees of its run.
void ScatteredSum::join_groups() {
  comm::Comm& across = *owners_.across();
  std::vector<comm::Pending> under_way;
  for (Bucket& bucket : buckets_) {
    if (bucket.total_N.defined()) continue;
    const std::vector<at::Tensor> nodes = bucket.sum.take();
    const at::Tensor nodes_PN =
        at::zeros({comm::most_subtrees(run_, across.size()), nodes.front().numel()}, at::kFloat);
    for (int64_t row = 0; const at::Tensor& node : nodes) nodes_PN[row++].copy_(node);
    bucket.total_N = nodes_PN[0];
    under_way.push_back(across.sum_tree(nodes_PN, run_));
  }
  for (const comm::Pending& one : under_way) one.wait();
}

std::vector<at::Tensor> ScatteredSum::finish() {
  const at::NoGradGuard no_grad;
  while (!flights_.empty()) land();
  if (owners_.across() != nullptr) join_groups();
  std::vector<at::Tensor> out(parameters_.size());
  for (Bucket& bucket : buckets_) {
    if (!bucket.total_N.defined()) bucket.total_N = bucket.sum.finish();
    int64_t next = 0;
    for (const size_t i : bucket.members) {
      std::vector<int64_t> shape = parameters_[i]->shape;
      const int64_t count = row_elements(i, comm_.rank());
      shape.front() = count / elements_of_row(*parameters_[i]);
      out[i] = bucket.total_N.narrow(0, next, count).view(shape);
      next += count;
    }
  }
  for (size_t i = 0; i < out.size(); ++i)
    if (place_[i].first == buckets_.size())
      out[i] = at::zeros_like(owned(*parameters_[i], parameters_[i]->master));
  return out;
}

}  // namespace retort::train
