// The one order in which Retort adds: leaves 0, 1, 2, ... are pushed in turn, neighbours of equal size merge
// at once, as in a binary counter, and finish() folds what is left from the last to the first:
//
//   4 leaves  (0+1)+(2+3)          6 leaves  ((0+1)+(2+3))+(4+5)          7 leaves  ((0+1)+(2+3))+((4+5)+6)
//
// A run of 2^k leaves that starts at a multiple of 2^k is a complete subtree, and any run of leaves is a few of
// them (subtrees()). So a rank that holds a run keeps one sum a subtree, and the sums of all ranks, pushed in
// order, give the bits of one tree over all leaves, however the leaves are split. At most log2(leaves) + 1
// partial sums are alive for a run that starts at 0, twice that for others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace retort::comm {

// Add: Value(Value left, Value right).
template <class Value, class Add>
class TreeSum {
 public:
  // `first`: the number of the first leaf that will be pushed.
  explicit TreeSum(int64_t first = 0) : first_(first), next_(first) {}

  // The next leaf, or the sum of the next complete subtree of that many leaves.
  void push(Value node, int64_t leaves = 1) {
    next_ += leaves;
    for (; merges(leaves); leaves *= 2) node = merge(std::move(node));
    nodes_.push_back({leaves, std::move(node)});
  }

  // The sums of the complete subtrees of subtrees(first, next), in order; the tree is empty again.
  std::vector<Value> take() {
    std::vector<Value> out;
    for (Node& node : nodes_) out.push_back(std::move(node.value));
    clear();
    return out;
  }

  // The sum of all leaves, of which there is at least one; the tree is empty again.
  Value finish() {
    Value sum = std::move(nodes_.back().value);
    nodes_.pop_back();
    while (!nodes_.empty()) sum = merge(std::move(sum));
    next_ = first_;
    return sum;
  }

  void clear() {
    nodes_.clear();
    next_ = first_;
  }

 private:
  struct Node {
    int64_t leaves;
    Value value;
  };
  // Whether the last node and one of `leaves` that ends at next_ make a complete subtree.
  bool merges(int64_t leaves) const {
    return !nodes_.empty() && nodes_.back().leaves == leaves && (next_ - 2 * leaves) % (2 * leaves) == 0;
  }
  Value merge(Value right) {
    Value left = std::move(nodes_.back().value);
    nodes_.pop_back();
    return Add()(std::move(left), std::move(right));
  }

  int64_t first_, next_;
  std::vector<Node> nodes_;
};

// The leaves of each complete subtree of the run [begin, end), in order: as few as there can be.
inline std::vector<int64_t> subtrees(int64_t begin, int64_t end) {
  std::vector<int64_t> out;
  while (begin < end) {
    int64_t leaves = 1;
    while (begin % (2 * leaves) == 0 && begin + 2 * leaves <= end) leaves *= 2;
    out.push_back(leaves);
    begin += leaves;
  }
  return out;
}

// The most that a rank has of them when each of `ranks` holds a run of `leaves`: 1 where that is a power of two.
inline int64_t most_subtrees(int64_t leaves, int ranks) {
  size_t most = 1;
  for (int64_t rank = 0; rank < ranks; ++rank)
    most = std::max(most, subtrees(rank * leaves, (rank + 1) * leaves).size());
  return static_cast<int64_t>(most);
}

}  // namespace retort::comm
