#include "data/bpe_merges.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/error.h"

namespace retort::data {
namespace {

constexpr size_t kShort = 48;
constexpr uint64_t kFree = UINT64_MAX;  // no pair: ids are not negative

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t hash(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15;
  return (pair ^ pair >> 32) * 0xD6E8FEB86659FD93;
}

}  // namespace

BpeMerges::BpeMerges(const std::vector<Merge>& merges) {
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
  else
    merge_long(symbols, scratch);
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

void BpeMerges::merge_long(std::vector<int32_t>& symbols, Scratch& scratch) const {
  const size_t count = symbols.size();
  RETORT_ASSERT(count < kNever);
  auto& [ranks, next, previous, heap] =
      scratch;  // a linked list of symbols, and a heap of rank << 32 | place
  ranks.assign(count, kNever);
  next.resize(count);
  previous.resize(count);
  heap.clear();
  const auto offer = [&](uint32_t at) {
    ranks[at] = next[at] < count ? find(symbols[at], symbols[next[at]]).rank : kNever;
    if (ranks[at] == kNever) return;
    heap.push_back(uint64_t{ranks[at]} << 32 | at);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (uint32_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i - 1;
  for (uint32_t i = 0; i < count; ++i) offer(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32), at = static_cast<uint32_t>(heap.back());
    heap.pop_back();
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
