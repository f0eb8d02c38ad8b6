#include "train/leaf_sum.h"

#include "comm/tree_sum.h"
#include "tests/testing.h"

namespace retort::train {

struct Add {
  at::Tensor operator()(const at::Tensor& left, const at::Tensor& right) const { return left + right; }
};

// tests/fake_device/ranks_test.cpp has devices.
TEST(LeafSum, OfTheHostsIsTheTrees) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int leaves = 1; leaves <= 5; ++leaves) {
      const auto all = [&] {
        std::vector<at::Tensor> out;
        for (int leaf = 0; leaf < leaves; ++leaf) out.push_back((at::arange(1, 30) / (leaf + 3.0)).to(dtype));
        return out;
      };
      comm::TreeSum<at::Tensor, Add> tree;
      for (const at::Tensor& leaf : all()) tree.push(leaf.to(at::kFloat));
      EXPECT_TRUE(testing::same_bits(sum_leaves(all()), tree.finish()));
    }
}

}  // namespace retort::train
