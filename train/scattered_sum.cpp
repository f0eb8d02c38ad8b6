#include "train/scattered_sum.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "train/leaf_sum.h"

namespace retort::train {
namespace {

int64_t elements_of_row(const models::Parameter& p) { return p.numel() / p.shape.front(); }

}  // namespace

ScatteredSum::ScatteredSum(std::vector<const models::Parameter*> parameters, const Owners& owners,
                           int64_t micro_batches, int64_t bucket_bytes)
    : parameters_(std::move(parameters)),
      owners_(owners),
      comm_(owners.group()),
      run_(micro_batches * comm_.size()) {
  RETORT_ASSERT(owners_.divides_gradients());
  std::vector<models::GradientSize> sizes;
  for (const models::Parameter* p : parameters_)
    sizes.push_back({p->role == models::Role::kScale ? 0 : p->numel(), p->working.scalar_type()});
  const std::vector<models::GradientBucket> filled = models::gradient_buckets(sizes, bucket_bytes);
  place_.assign(parameters_.size(), {filled.size(), 0});
  for (const models::GradientBucket& one : filled) {
    for (size_t m = 0; m < one.members.size(); ++m) place_[one.members[m]] = {buckets_.size(), m};
    Bucket& bucket = buckets_.emplace_back();
    static_cast<models::GradientBucket&>(bucket) = one;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      int64_t& owned = bucket.owned.emplace_back(0);
      for (const size_t i : one.members) owned += row_elements(i, rank);
    }
    const int64_t most = *std::ranges::max_element(bucket.owned);
    bucket.piece = models::piece_elements(bucket_bytes, one.dtype, comm_.size());
    bucket.trees.assign(static_cast<size_t>((most + bucket.piece - 1) / bucket.piece),
                        comm::TreeSum<at::Tensor, Add>(owners_.replica() * run_));
  }
}

int64_t ScatteredSum::row_elements(size_t i, int rank) const {
  const std::vector<int64_t>& rows = owners_.bounds(*parameters_[i]);
  const auto r = static_cast<size_t>(rank);
  return (rows[r + 1] - rows[r]) * elements_of_row(*parameters_[i]);
}

// Of a piece, what a rank owns.
int64_t ScatteredSum::count_of(const Bucket& bucket, int64_t number, int rank) const {
  const int64_t left = bucket.owned[static_cast<size_t>(rank)] - number * bucket.piece;
  return std::clamp<int64_t>(left, 0, bucket.piece);
}

void ScatteredSum::begin_step() {
  for (const Flight& flight : flights_) flight.arrival.wait();
  flights_.clear();
  started_ = 0;
  turn_ = 0;
  for (Bucket& bucket : buckets_) {
    for (auto& tree : bucket.trees) tree.clear();
    bucket.levels.clear();
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
  if (gradient.defined()) gradient = gradient.contiguous();
  bucket.gradients[member] = std::move(gradient);  // which nobody else keeps
  --bucket.missing;
  for (; started_ < buckets_.size() && buckets_[started_].missing == 0; ++started_) start(buckets_[started_]);
  if (started_ < buckets_.size()) return;
  started_ = 0;  // the micro-batch is complete
  ++turn_;
  for (Bucket& one : buckets_) one.missing = one.members.size();
}

// What a rank owns of a bucket is its rows of the first member, then of the next; of that the elements from `begin` on.
void ScatteredSum::copy_owned(const Bucket& bucket, int rank, int64_t begin, const at::Tensor& to_N) const {
  int64_t done = 0;
  for (size_t m = 0; m < bucket.members.size() && done < to_N.numel(); ++m) {
    const size_t i = bucket.members[m];
    const int64_t all = row_elements(i, rank), count = std::min(all - begin, to_N.numel() - done);
    if (count <= 0) {
      begin -= all;
      continue;
    }
    const at::Tensor to = to_N.narrow(0, done, count);
    const int64_t first = owners_.bounds(*parameters_[i])[static_cast<size_t>(rank)];
    const at::Tensor& gradient = bucket.gradients[m];
    gradient.defined()
        ? to.copy_(gradient.view(-1).narrow(0, first * elements_of_row(*parameters_[i]) + begin, count))
        : to.zero_();
    done += count, begin = 0;
  }
}

// Rank by rank what it owns of the piece. One parameter that is one piece has its rows in that order.
at::Tensor ScatteredSum::pack(const Bucket& bucket, int64_t number) const {
  const at::Tensor& first = bucket.gradients.front();
  if (bucket.members.size() == 1 && bucket.trees.size() == 1 && first.defined()) return first.view(-1);
  int64_t elements = 0;
  for (int rank = 0; rank < comm_.size(); ++rank) elements += count_of(bucket, number, rank);
  const at::Device device = parameters_[bucket.members.front()]->working.device();
  at::Tensor packed_N = at::empty({elements}, at::TensorOptions(device).dtype(bucket.dtype));
  for (int64_t next = 0, rank = 0; rank < comm_.size(); ++rank) {
    const int64_t count = count_of(bucket, number, static_cast<int>(rank));
    copy_owned(bucket, static_cast<int>(rank), number * bucket.piece, packed_N.narrow(0, next, count));
    next += count;
  }
  return packed_N;
}

void ScatteredSum::start(Bucket& bucket) {
  for (int64_t number = 0; number < std::ssize(bucket.trees); ++number) send(bucket, number);
}

void ScatteredSum::send(Bucket& bucket, int64_t number) {
  while (flights_.size() >= models::kPiecesUnderWay) land();
  const at::Tensor packed_N = pack(bucket, number);
  if (number + 1 == std::ssize(bucket.trees)) bucket.gradients.assign(bucket.members.size(), {});
  std::vector<int64_t> bounds{0};
  std::vector<at::Tensor> received;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    bounds.push_back(bounds.back() + count_of(bucket, number, rank));
    received.push_back(at::empty({count_of(bucket, number, comm_.rank())}, packed_N.options()));
  }
  comm::Pending arrival = comm_.all_to_all(received, packed_N, bounds);
  flights_.push_back({bucket, number, turn_, packed_N, std::move(received), std::move(arrival)});
}

// A turn's micro-batches are those of the ranks in their order.
void ScatteredSum::land() {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  flight.arrival.wait();
  flight.packed_N.reset();
  auto& tree = flight.bucket.trees[static_cast<size_t>(flight.number)];
  const int64_t first = owners_.replica() * run_ + flight.turn * comm_.size();
  for (auto next = flight.received.begin();
       const int64_t leaves : comm::subtrees(first, first + comm_.size())) {
    const auto end = next + leaves;
    tree.push(sum_leaves({std::move_iterator(next), std::move_iterator(end)}), leaves);
    next = end;
  }
  settle(flight.bucket, flight.number, flight.turn);
}

// What a piece's tree holds after a turn goes to the bucket's levels, so that the sum of all pieces is one tensor.
void ScatteredSum::settle(Bucket& bucket, int64_t number, int64_t turn) {
  auto& tree = bucket.trees[static_cast<size_t>(number)];
  const int64_t first = owners_.replica() * run_, done = (turn + 1) * comm_.size();
  const std::vector<int64_t> leaves = comm::subtrees(first, first + done);
  const auto rank = static_cast<size_t>(comm_.rank());
  std::vector<at::Tensor> nodes = tree.take();
  RETORT_ASSERT(nodes.size() == leaves.size());
  for (size_t n = 0; n < nodes.size(); ++n) {
    if (bucket.levels.size() == n)
      bucket.levels.push_back(at::empty({bucket.owned[rank]}, nodes[n].options()));
    const at::Tensor kept =
        bucket.levels[n].narrow(0, std::min(bucket.owned[rank], number * bucket.piece), nodes[n].numel());
    if (!nodes[n].is_alias_of(kept)) kept.copy_(nodes[n]);
    nodes[n].reset();
    tree.push(kept, leaves[n]);
  }
  if (number + 1 == std::ssize(bucket.trees)) bucket.levels.resize(leaves.size());
}

// The tree over all micro-batches, of which each group has the subtrees of its run.
void ScatteredSum::join_groups() {
  comm::Comm& across = *owners_.across();
  std::vector<comm::Pending> under_way;
  for (Bucket& bucket : buckets_) {
    if (bucket.total_N.defined()) continue;
    const at::Tensor& first_N = bucket.levels.front();
    const at::Tensor nodes_PN =
        at::zeros({comm::most_subtrees(run_, across.size()), first_N.numel()}, first_N.options());
    for (int64_t row = 0; const at::Tensor& node : bucket.levels) nodes_PN[row++].copy_(node);
    for (auto& tree : bucket.trees) tree.clear();
    bucket.levels.clear();
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
    if (!bucket.total_N.defined()) {
      for (auto& tree : bucket.trees) tree.finish();  // into the first level
      bucket.levels.resize(1);
      bucket.total_N = bucket.levels.front();
    }
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
