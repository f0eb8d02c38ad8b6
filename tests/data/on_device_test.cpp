#include "data/on_device.h"

#include <gtest/gtest.h>

namespace retort::data {

// What a model reads travels; where its rows are in the corpora stays with those who look there.
TEST(OnDevice, TokensTravelAndPlacesStay) {
  Batch batch;
  batch.tokens_BT = batch.labels_BT = batch.corpus_BT = at::ones({2, 3}, at::kLong);
  batch.document_BT = at::zeros({2, 3}, at::kLong);
  batch.source_B = at::zeros({2}, at::kLong);
  batch.samples = {4, 5};
  const Batch there = on_device(batch, at::kMeta);
  EXPECT_TRUE(there.tokens_BT.is_meta());
  EXPECT_TRUE(there.labels_BT.is_meta());
  EXPECT_FALSE(there.positions_BT.defined());
  EXPECT_TRUE(there.document_BT.is_cpu()) << "the host must know how long they are";
  EXPECT_TRUE(there.corpus_BT.is_cpu());
  EXPECT_TRUE(there.source_B.is_cpu());
  EXPECT_EQ(there.samples, batch.samples);
  EXPECT_TRUE(on_device(batch, at::kCPU).tokens_BT.is_same(batch.tokens_BT));
}

}  // namespace retort::data
