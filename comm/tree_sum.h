// The one order in which Retort adds: leaves 0, 1, 2, ... are pushed in turn, neighbours of equal size merge
// at once, as in a binary counter, and finish() folds what is left from the last to the first:
//
//   4 leaves  (0+1)+(2+3)          6 leaves  ((0+1)+(2+3))+(4+5)          7 leaves  ((0+1)+(2+3))+((4+5)+6)
//
// A run of 2^k leaves that starts at a multiple of 2^k is a complete subtree. So R ranks that each sum G =
// 2^k leaves and then sum their results by the same tree get the bits of one tree over all R G leaves. At
// most log2(leaves) + 1 partial sums are alive.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace retort::comm {

// Add: Value(Value left, Value right).
template <class Value, class Add>
class TreeSum {
 public:
  TreeSum() = default;
  explicit TreeSum(Add add) : add_(std::move(add)) {}

  void push(Value leaf) {
    int64_t leaves = 1;
    for (; !nodes_.empty() && nodes_.back().leaves == leaves; leaves *= 2) leaf = merge(std::move(leaf));
    nodes_.push_back({leaves, std::move(leaf)});
  }

  // The sum of all leaves, of which there is at least one; the tree is empty again.
  Value finish() {
    Value sum = std::move(nodes_.back().value);
    nodes_.pop_back();
    while (!nodes_.empty()) sum = merge(std::move(sum));
    return sum;
  }

  void clear() { nodes_.clear(); }

 private:
  struct Node {
    int64_t leaves;
    Value value;
  };
  Value merge(Value right) {
    Value left = std::move(nodes_.back().value);
    nodes_.pop_back();
    return add_(std::move(left), std::move(right));
  }

  std::vector<Node> nodes_;
  Add add_;
};

}  // namespace retort::comm
