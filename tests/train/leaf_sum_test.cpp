#include "train/leaf_sum.h"

#include "comm/leaf_sum.h"
#include "tests/testing.h"

namespace retort::train {

// On the host as pairs are; tests/fake_device/ranks_test.cpp has devices.
TEST(LeafSum, OfTheHostsIsThatOfPairs) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int leaves = 1; leaves <= 5; ++leaves) {
      const auto all = [&] {
        std::vector<at::Tensor> out;
        for (int leaf = 0; leaf < leaves; ++leaf) out.push_back((at::arange(1, 30) / (leaf + 3.0)).to(dtype));
        return out;
      };
      EXPECT_TRUE(testing::same_bits(sum_leaves(all()), comm::sum_in_pairs(all())));
    }
}

}  // namespace retort::train
