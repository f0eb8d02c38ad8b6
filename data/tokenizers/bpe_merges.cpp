#include "data/tokenizers/bpe_merges.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

#include "core/error.h"

namespace retort::data {
namespace {

constexpr size_t kShort = 48;
constexpr size_t kRulesPerSymbol = 8;   // emptying a bucket costs less than a step in the heap
constexpr uint64_t kFree = UINT64_MAX;  // no pair: ids are not negative

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t hash(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15;
  return (pair ^ pair >> 32) * 0xD6E8FEB86659FD93;
}

uint64_t key_of(uint32_t rank, uint32_t place) { return uint64_t{rank} << 32 | place; }

// The least key first.
class Heap {
 public:
  explicit Heap(std::vector<uint64_t>& keys) : keys_(keys) { keys_.clear(); }
  void push(uint64_t key) {
    keys_.push_back(key);
    std::push_heap(keys_.begin(), keys_.end(), std::greater<>());
  }
  uint64_t least() const { return keys_.empty() ? kFree : keys_.front(); }
  uint64_t pop() {  // kFree: there is none
    const uint64_t key = least();
    if (key == kFree) return kFree;
    std::pop_heap(keys_.begin(), keys_.end(), std::greater<>());
    keys_.pop_back();
    return key;
  }

 private:
  std::vector<uint64_t>& keys_;
};

// The same, for ranks that are mostly pushed before their turn: a list of places for each rank. What comes
// too late waits in a heap.
class Buckets {
 public:
  Buckets(BpeMerges::Scratch& scratch, size_t rules)
      : heads_(scratch.heads),
        entries_(scratch.entries),
        places_(scratch.places),
        sorted_(scratch.sorted),
        late_(scratch.heap) {
    heads_.assign(rules, kEnd);
    entries_.clear();
    places_.clear();
  }
  void push(uint64_t key) {
    const auto rank = static_cast<uint32_t>(key >> 32);
    if (rank < open_) return late_.push(key);
    entries_.push_back(static_cast<uint32_t>(key));
    entries_.push_back(heads_[rank]);
    heads_[rank] = static_cast<uint32_t>(entries_.size()) - 2;
  }
  uint64_t pop() {
    while (true) {
      const uint64_t next = taken_ < places_.size() ? key_of(open_ - 1, places_[taken_]) : kFree;
      if (late_.least() < next) return late_.pop();
      if (next != kFree) return ++taken_, next;
      while (open_ < heads_.size() && heads_[open_] == kEnd) ++open_;
      if (open_ == heads_.size()) return kFree;
      take(heads_[open_++]);
    }
  }

 private:
  static constexpr uint32_t kEnd = UINT32_MAX;
  void take(uint32_t entry) {
    places_.clear();
    taken_ = 0;
    for (; entry != kEnd; entry = entries_[entry + 1]) places_.push_back(entries_[entry]);
    std::reverse(places_.begin(), places_.end());  // mostly pushed from the left
    if (std::is_sorted(places_.begin(), places_.end())) return;
    if (places_.size() <= 256) return std::sort(places_.begin(), places_.end());
    for (int shift = 0; shift < 32; shift += 8) {  // by digits, so that it is linear
      std::array<size_t, 257> begin{};
      for (const uint32_t place : places_) ++begin[(place >> shift & 255) + 1];
      for (size_t digit = 0; digit < 256; ++digit) begin[digit + 1] += begin[digit];
      sorted_.resize(places_.size());
      for (const uint32_t place : places_) sorted_[begin[place >> shift & 255]++] = place;
      places_.swap(sorted_);
    }
  }

  std::vector<uint32_t>&heads_, &entries_, &places_, &sorted_;  // entries: place, next entry
  Heap late_;
  uint32_t open_ = 0;  // ranks below have had their turn, or have it now
  size_t taken_ = 0;   // of the places whose turn it is
};

}  // namespace

BpeMerges::BpeMerges(const std::vector<Merge>& merges) : rules_(merges.size()) {
  RETORT_ASSERT(merges.size() < kNever);
  const size_t size = std::bit_ceil(2 * merges.size() + 2);
  shift_ = 64 - std::countr_zero(size);
  table_.assign(size, {kFree, kNever, -1});
  uint32_t rank = 0;
  for (const Merge& merge : merges) {
    const uint64_t pair = pair_of(merge.left, merge.right);
    size_t at = hash(pair) >> shift_;
    while (table_[at].pair != kFree && table_[at].pair != pair) at = (at + 1) & (size - 1);
    table_[at] = {pair, rank++, merge.joined};
  }
}

const BpeMerges::Rule& BpeMerges::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t at = hash(pair) >> shift_;
  while (table_[at].pair != pair && table_[at].pair != kFree) at = (at + 1) & (table_.size() - 1);
  return table_[at];
}

void BpeMerges::merge(std::vector<int32_t>& symbols, Scratch& scratch) const {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort)
    merge_short(symbols, scratch);
  else if (symbols.size() * kRulesPerSymbol < rules_)
    merge_line(symbols, scratch, Heap(scratch.heap));
  else
    merge_line(symbols, scratch, Buckets(scratch, rules_));
}

void BpeMerges::merge_short(std::vector<int32_t>& symbols, Scratch& scratch) const {
  std::vector<uint32_t>& ranks = scratch.ranks;  // of symbol i with its right neighbour
  size_t count = symbols.size();
  ranks.resize(count);
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = find(symbols[i], symbols[i + 1]).rank;
  while (count > 1) {
    const auto least = std::min_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(count) - 1);
    if (*least == kNever) break;
    const auto at = static_cast<size_t>(least - ranks.begin());
    symbols[at] = find(symbols[at], symbols[at + 1]).joined;
    --count;
    for (size_t i = at + 1; i < count; ++i) symbols[i] = symbols[i + 1], ranks[i] = ranks[i + 1];
    if (at > 0) ranks[at - 1] = find(symbols[at - 1], symbols[at]).rank;
    if (at + 1 < count) ranks[at] = find(symbols[at], symbols[at + 1]).rank;
  }
  symbols.resize(count);
}

template <class Queue>
void BpeMerges::merge_line(std::vector<int32_t>& symbols, Scratch& scratch, Queue queue) const {
  const size_t count = symbols.size();
  RETORT_ASSERT(count < kNever / 8);
  std::vector<uint32_t>&ranks = scratch.ranks, &next = scratch.next, &previous = scratch.previous;
  ranks.assign(count, kNever);
  next.resize(count);
  previous.resize(count);
  const auto offer = [&](uint32_t at) {
    ranks[at] = next[at] < count ? find(symbols[at], symbols[next[at]]).rank : kNever;
    if (ranks[at] != kNever) queue.push(key_of(ranks[at], at));
  };
  for (uint32_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i - 1;
  for (uint32_t i = 0; i < count; ++i) offer(i);
  for (uint64_t key = queue.pop(); key != kFree; key = queue.pop()) {
    const auto rank = static_cast<uint32_t>(key >> 32), at = static_cast<uint32_t>(key);
    if (ranks[at] != rank) continue;  // the pair has changed since, or is gone
    const uint32_t gone = next[at];
    symbols[at] = find(symbols[at], symbols[gone]).joined;
    symbols[gone] = -1;
    ranks[gone] = kNever;
    next[at] = next[gone];
    if (next[at] < count) previous[next[at]] = at;
    offer(at);
    if (at > 0) offer(previous[at]);
  }
  std::erase(symbols, -1);
}

}  // namespace retort::data
