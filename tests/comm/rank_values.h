// What the tests of every back end send, and the sum they must get.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "comm/tree_sum.h"
#include "core/random.h"

namespace retort::comm {

// Both sides of the border between one round and slices, and counts that no rank count divides.
inline const std::vector<int64_t> kCounts = {0, 1, 7, 1024, 1025, 10007, 100003};

inline at::Tensor values(int rank, int64_t count, at::ScalarType dtype = at::kFloat) {
  at::Tensor out = at::empty({count}, at::kFloat);
  Random(5, "comm", rank, count).fill_normal(out, 1000.0);
  return out.to(dtype);
}

struct AddTensors {
  at::Tensor operator()(at::Tensor left, at::Tensor right) const { return left + right; }
};

inline at::Tensor tree_over_ranks(int ranks, int64_t count, at::ScalarType dtype) {
  TreeSum<at::Tensor, AddTensors> tree;
  for (int r = 0; r < ranks; ++r)
    tree.push(values(r, count, dtype).to(dtype == at::kBFloat16 ? at::kFloat : dtype));
  return tree.finish().to(dtype);
}

// Where the runs of all_to_all() begin and end: even ones, or the later the longer.
inline std::vector<int64_t> run_bounds(int ranks, int64_t count, double skew) {
  std::vector<int64_t> out;
  for (int r = 0; r <= ranks; ++r)
    out.push_back(static_cast<int64_t>(static_cast<double>(count) *
                                       std::pow(static_cast<double>(r) / ranks, 1.0 + skew)));
  return out;
}

// Rank `rank`'s rows for sum_tree(): the subtrees of its run of leaves, whose values are values(leaf).
inline at::Tensor own_subtrees(int rank, int ranks, int64_t leaves, int64_t count) {
  TreeSum<at::Tensor, AddTensors> tree(rank * leaves);
  for (int64_t i = 0; i < leaves; ++i) tree.push(values(static_cast<int>(rank * leaves + i), count));
  const at::Tensor nodes_PN = at::full({most_subtrees(leaves, ranks), count}, NAN);
  for (int64_t row = 0; const at::Tensor& node : tree.take()) nodes_PN[row++].copy_(node);
  return nodes_PN;
}

}  // namespace retort::comm
