#include "plan/gradient_flow.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>

#include "comm/tree_sum.h"

namespace retort::plan {
namespace {

constexpr double kF32 = 4.0;

double real(int64_t x) { return static_cast<double>(x); }

// Bytes for each element that a rank owns of a piece, of `ranks` leaves in `item` bytes that one after the other become f32
// nodes of a tree.
double adding_up(int64_t ranks, double item) {
  double most = 0;
  for (int64_t leaf = 0; leaf < ranks; ++leaf) {
    const double nodes = kF32 * real(std::popcount(static_cast<uint64_t>(leaf)) + 1);
    most = std::max(most, nodes + item * real(ranks - 1 - leaf) + (item < kF32 ? item : 0));
  }
  return most;
}

std::vector<Rows> rows_of(const std::vector<MadeGradient>& gradients) {
  std::vector<Rows> out;
  for (const MadeGradient& one : gradients) out.push_back(one.rows);
  return out;
}

}  // namespace

GradientLayout::GradientLayout(const std::vector<MadeGradient>& made, bool in_bf16, int64_t of_ranks,
                               int64_t bucket_bytes)
    : gradients(made), bf16(in_bf16), ranks(of_ranks), owners(rows_of(made), of_ranks) {
  std::vector<models::GradientSize> sizes;
  for (const MadeGradient& g : gradients)
    sizes.push_back({g.rows.scale ? 0 : g.rows.elements, g.f32 || !bf16 ? at::kFloat : at::kBFloat16});
  place.resize(gradients.size());
  const double of_f32 = adding_up(ranks, kF32), of_bf16 = adding_up(ranks, 2);
  for (models::GradientBucket& one : models::gradient_buckets(sizes, bucket_bytes)) {
    Bucket& bucket = buckets.emplace_back();
    std::map<int64_t, int64_t> of_rank;
    for (const size_t i : one.members) {
      place[i] = buckets.size() - 1;
      for (int64_t rank = owners.first_owner(i); rank <= owners.last_owner(i); ++rank)
        if (const int64_t elements = owners.elements(i, rank); elements > 0) of_rank[rank] += elements;
    }
    bucket.owned.assign(of_rank.begin(), of_rank.end());
    int64_t most = 0;
    for (const auto& [rank, elements] : bucket.owned) most = std::max(most, elements);
    bucket.item = real(static_cast<int64_t>(c10::elementSize(one.dtype)));
    bucket.piece = models::piece_elements(bucket_bytes, one.dtype, ranks);
    bucket.pieces = (most + bucket.piece - 1) / bucket.piece;
    bucket.adding = one.dtype == at::kFloat ? of_f32 : of_bf16;
    bucket.filled = std::move(one);
  }
}

int64_t GradientLayout::Bucket::of(int64_t rank) const {
  const auto found = std::ranges::lower_bound(owned, rank, {}, [](const auto& one) { return one.first; });
  return found != owned.end() && found->first == rank ? found->second : 0;
}

double GradientLayout::bytes(size_t i) const {
  return real(gradients[i].rows.elements) * (gradients[i].f32 || !bf16 ? kF32 : 2);
}

GradientFlow::GradientFlow(const GradientLayout& layout, int64_t rank) : layout_(layout) {
  for (const GradientLayout::Bucket& one : layout.buckets)
    buckets_.push_back({.mine = one.of(rank), .missing = one.filled.members.size()});
}

double GradientFlow::share() const {
  int64_t mine = 0;
  for (const Bucket& bucket : buckets_) mine += bucket.mine;
  return real(mine) / real(layout_.owners.total());
}

// Of a bucket or a flight: the sum of all is kept up.
void GradientFlow::set(double& bytes, double to) {
  now_ += to - bytes;
  bytes = to;
}

void GradientFlow::mark(double more) { most_ = std::max(most_, now_ + more); }

void GradientFlow::begin_turn(int64_t turn) {
  before_turn_ = real(std::ssize(comm::subtrees(0, turn * layout_.ranks)));
  after_turn_ = real(std::ssize(comm::subtrees(0, (turn + 1) * layout_.ranks)));
  std::set<size_t> unsettled;
  for (const Flight& flight : flights_) unsettled.insert(flight.bucket);
  for (size_t b = 0; b < buckets_.size(); ++b)
    if (!unsettled.contains(b)) set(buckets_[b].levels, kF32 * before_turn_ * real(buckets_[b].mine));
}

double GradientFlow::add(size_t i) {
  Bucket& bucket = buckets_[layout_.place[i]];
  set(bucket.waiting, bucket.waiting + layout_.bytes(i));
  most_ = 0;
  mark();
  --bucket.missing;
  for (; started_ < buckets_.size() && buckets_[started_].missing == 0; ++started_) start(started_);
  if (started_ < buckets_.size()) return most_;
  started_ = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) buckets_[b].missing = layout_.buckets[b].filled.members.size();
  return most_;
}

// The first pieces are the largest, and the last ones stay under way: those between change nothing.
void GradientFlow::start(size_t b) {
  const int64_t pieces = layout_.buckets[b].pieces;
  for (int64_t number = 0; number < pieces; ++number) {
    if (number > 3 && number < pieces - 3) number = pieces - 3;
    send(b, number);
  }
}

void GradientFlow::send(size_t b, int64_t number) {
  while (flights_.size() >= models::kPiecesUnderWay) land();
  const GradientLayout::Bucket& packing = layout_.buckets[b];
  Bucket& bucket = buckets_[b];
  const auto part = [&](int64_t elements) {
    return real(std::clamp<int64_t>(elements - number * packing.piece, 0, packing.piece)) * packing.item;
  };
  double packed = 0;
  for (const auto& [rank, elements] : packing.owned) packed += part(elements);
  const bool as_it_is = packing.filled.members.size() == 1 && packing.pieces == 1;
  if (!as_it_is) mark(packed);
  if (number + 1 == packing.pieces) set(bucket.waiting, 0);
  flights_.push_back({.bucket = b, .number = number, .before = before_turn_, .after = after_turn_});
  set(flights_.back().packed, packed);
  set(flights_.back().received, real(layout_.ranks) * part(bucket.mine));
  mark();
}

void GradientFlow::land() {
  const Flight flight = flights_.front();
  set(flights_.front().packed, 0), set(flights_.front().received, 0);
  flights_.pop_front();
  const GradientLayout::Bucket& packing = layout_.buckets[flight.bucket];
  Bucket& bucket = buckets_[flight.bucket];
  const double mine = flight.received / packing.item / real(layout_.ranks);  // elements
  mark(mine * packing.adding);
  const double level = kF32 * real(bucket.mine);
  if (flight.number == 0) set(bucket.levels, std::max(flight.before, flight.after) * level);
  mark(std::max(1.0, flight.after - flight.before) * kF32 * mine);
  if (flight.number + 1 == packing.pieces) set(bucket.levels, flight.after * level);
}

double GradientFlow::finish(double rows_across) {
  most_ = 0;
  while (!flights_.empty()) land();
  double copied = 0;
  for (Bucket& bucket : buckets_) {
    const double level = kF32 * real(bucket.mine);
    if (rows_across > 0) {
      copied += rows_across * level;
      mark(copied);
    }
    set(bucket.levels, rows_across > 0 ? 0 : level);
  }
  mark(copied);
  return most_;
}

}  // namespace retort::plan
