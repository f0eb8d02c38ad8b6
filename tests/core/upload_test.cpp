#include "core/upload.h"

#include <gtest/gtest.h>

namespace retort {
namespace {

// tests/fake_device/fake_device_test.cpp sends.
TEST(Upload, LeavesATensorWhereItIs) {
  const at::Tensor x = at::arange(6).view({2, 3}).t();
  EXPECT_TRUE(upload(x, at::kCPU).is_same(x));
}

}  // namespace
}  // namespace retort
