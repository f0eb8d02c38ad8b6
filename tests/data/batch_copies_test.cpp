// On the CPU; tests/fake_device/batch_copies_test.cpp has a device.
#include "data/batch_copies.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::data {

TEST(BatchCopiesOnTheCpu, AreTheBatchesThemselves) {
  const auto batch_of = [](int64_t first) {
    const at::Tensor tokens_BT = at::arange(first, first + 6).view({2, 3});
    return Batch{tokens_BT, tokens_BT + 1, {}, {}, {}};
  };
  const std::vector<Batch> batches = {batch_of(0), batch_of(10)};
  BatchCopies copies(at::kCPU);
  copies.send(batches);
  for (const size_t g : {1, 0, 1}) {
    EXPECT_TRUE(copies.take(g).tokens_BT.is_same(batches[g].tokens_BT)) << g;
    EXPECT_TRUE(copies.take(g).labels_BT.is_same(batches[g].labels_BT)) << g;
    EXPECT_FALSE(copies.take(g).positions_BT.defined());
  }
  copies.send({batch_of(20)});
  EXPECT_EQ(copies.take(0).tokens_BT[0][0].item<int64_t>(), 20);
  EXPECT_THROW(copies.take(1), InternalError) << "those before are gone";
}

}  // namespace retort::data
