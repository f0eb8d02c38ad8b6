#include "kernels/tensor_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace retort::kernels {

TEST(TensorMemory, ComesAndGoesUnderTensorsThatStay) {
  const at::Tensor whole = at::arange(6, at::kFloat), view = whole.narrow(0, 2, 3);
  take_memory(whole);
  EXPECT_EQ(whole.const_data_ptr(), nullptr);
  EXPECT_EQ(view.numel(), 3);
  EXPECT_EQ(whole.storage().nbytes(), 6 * sizeof(float));
  give_memory(whole);
  whole.fill_(2);
  EXPECT_TRUE(view.eq(2).all().item<bool>()) << "a view has its tensor's memory again";
}

}  // namespace retort::kernels
