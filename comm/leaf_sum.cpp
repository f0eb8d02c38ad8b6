#include "comm/leaf_sum.h"

#include "comm/tree_sum.h"

namespace retort::comm {
namespace {

struct AddInPlace {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left.add_(right); }
};

}  // namespace

at::Tensor sum_in_pairs(std::vector<at::Tensor> leaves) {
  TreeSum<at::Tensor, AddInPlace> tree;
  for (at::Tensor& leaf : leaves) {
    const bool narrow = at::isReducedFloatingType(leaf.scalar_type());
    tree.push(narrow ? leaf.to(at::kFloat) : leaf);
    leaf.reset();
  }
  return tree.finish();
}

}  // namespace retort::comm
