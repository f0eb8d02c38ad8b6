// On the CPU; tests/fake_device/attention_test.cpp has a device.
#include "models/document_mask.h"

#include <gtest/gtest.h>

namespace retort::models {
namespace {

TEST(DocumentMask, OnTheCpuIsTheNumbersThemselves) {
  const at::Tensor document_BT = at::zeros({2, 3}, at::kLong);
  const kernels::AttentionMask mask = document_mask(document_BT, at::kCPU);
  EXPECT_TRUE(mask.document_BS.is_same(document_BT));
  EXPECT_FALSE(mask.lengths.cumulative.defined()) << "which the CPU needs none of";
  EXPECT_EQ(mask.window, 0);
}

TEST(DocumentMask, OfNoDocumentsIsNone) {
  for (const at::DeviceType device : {at::kCPU, at::kMeta})
    EXPECT_FALSE(document_mask({}, device).document_BS.defined());
}

}  // namespace
}  // namespace retort::models
