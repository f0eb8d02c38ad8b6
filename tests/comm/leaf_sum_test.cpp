#include "comm/leaf_sum.h"

#include "comm/tree_sum.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

struct Add {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left + right; }
};

}  // namespace

// Of values whose sum depends on the order; what is narrower is added in f32.
TEST(SumInPairs, HasTheOrderOfTheTree) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble, at::kLong})
    for (int leaves = 1; leaves <= 9; ++leaves) {
      TreeSum<at::Tensor, Add> tree;
      std::vector<at::Tensor> all;
      for (int leaf = 0; leaf < leaves; ++leaf) {
        all.push_back((at::arange(1, 30, at::kDouble).pow(leaf % 4) * (1e4 / (leaf + 3))).to(dtype));
        tree.push(all.back().to(dtype == at::kBFloat16 ? at::kFloat : dtype, /*non_blocking=*/false,
                                /*copy=*/true));
      }
      EXPECT_TRUE(testing::same_bits(sum_in_pairs(all), tree.finish()))
          << leaves << " of " << toString(dtype);
    }
}

}  // namespace retort::comm
