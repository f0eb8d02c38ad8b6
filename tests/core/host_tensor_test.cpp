#include "core/host_tensor.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort {

TEST(HostTensor, ReadsAndWritesTheElements) {
  const at::Tensor x = at::zeros({2, 3});
  const std::span<float> values = host_values<float>(x);
  ASSERT_EQ(values.size(), 6u);
  values[4] = 2.5f;
  EXPECT_EQ(x[1][1].item<float>(), 2.5f);
  EXPECT_EQ(host_values<const float>(x)[4], 2.5f);
  EXPECT_THROW(host_values<double>(x), c10::Error) << "another element type";
}

TEST(HostTensor, GivesTheBytesOfDenseTensorsInAnyOrder) {
  const at::Tensor x = at::arange(6, at::kInt).view({2, 3});
  EXPECT_EQ(host_bytes(x.t()).size(), 24u);
  mutable_host_bytes(x.t())[8] = std::byte{9};
  EXPECT_EQ(x[0][2].item<int>(), 9);
  EXPECT_THROW(host_values<int>(x.t()), InternalError);
}

TEST(HostTensor, RefusesWhatTheHostCannotRead) {
  EXPECT_THROW(host_bytes({}), InternalError);
  EXPECT_THROW(host_bytes(at::zeros({4, 4}).narrow(1, 0, 2)), InternalError);
  EXPECT_THROW(host_values<const float>(at::empty({2}, at::kMeta)), InternalError);
  EXPECT_THROW(mutable_host_bytes(at::empty({2}, at::kMeta)), InternalError);
}

}  // namespace retort
