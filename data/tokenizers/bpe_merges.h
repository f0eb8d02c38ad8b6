// Byte-pair merging (Sennrich et al. 2016, section 3.2): of all neighbours that a rule joins, the rule of the
// lowest rank goes first, and among equal ranks the leftmost pair; until no rule applies.
// Short pieces are searched, at most kShort symbols at a time; longer ones go through a heap, and those with
// more symbols than a share of the rules through one bucket a rule. A joined symbol is in later rules
// than its own, so the buckets are emptied in order, and a piece of n symbols costs O(n) whatever it holds (a
// vocabulary of another order: O(n log n)).
// Immutable and shared between threads; a Scratch belongs to one call at a time.
#pragma once

#include <cstdint>
#include <vector>

namespace retort::data {

struct Merge {
  int32_t left, right, joined;
};

class BpeMerges {
 public:
  struct Scratch {
    std::vector<uint32_t> ranks, next, previous;
    std::vector<uint64_t> heap;
    std::vector<uint32_t> heads, entries, places, sorted;  // of the buckets
  };
  // In rank order. Where two rules have the same pair, the later one holds.
  explicit BpeMerges(const std::vector<Merge>& merges);
  void merge(std::vector<int32_t>& symbols, Scratch& scratch) const;

 private:
  static constexpr uint32_t kNever = UINT32_MAX;
  struct Rule {
    uint64_t pair;
    uint32_t rank;
    int32_t joined;
  };
  const Rule& find(int32_t left, int32_t right) const;
  void merge_short(std::vector<int32_t>& symbols, Scratch& scratch) const;
  template <class Queue>
  void merge_line(std::vector<int32_t>& symbols, Scratch& scratch, Queue queue) const;

  std::vector<Rule> table_;  // open addressing; at most half full
  int shift_;                // of a hash to an index
  size_t rules_;
};

}  // namespace retort::data
