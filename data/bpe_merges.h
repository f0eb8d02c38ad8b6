// Byte-pair merging (Sennrich et al. 2016, section 3.2): of all neighbours that a rule joins, the rule of the
// lowest rank goes first, and among equal ranks the leftmost pair; until no rule applies.
// Short pieces are searched, at most kShort symbols at a time; longer ones go through a heap, so a piece of n
// symbols costs O(n log n) whatever it holds.
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
  void merge_long(std::vector<int32_t>& symbols, Scratch& scratch) const;

  std::vector<Rule> table_;  // open addressing; at most half full
  int shift_;                // of a hash to an index
};

}  // namespace retort::data
