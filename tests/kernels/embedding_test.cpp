#include "kernels/embedding.h"

#include <gtest/gtest.h>

namespace retort::kernels {

// Each id's row is the sum of its tokens' gradients; an id without a token has none.
TEST(Embedding, GradientsAreSummedByTheirIds) {
  const at::Tensor ids_N = at::tensor({int64_t{2}, int64_t{0}, int64_t{2}, int64_t{4}}).view({2, 2});
  const at::Tensor dy_ND = at::arange(12, at::kFloat).view({4, 3});
  at::Tensor expected_VD = at::zeros({5, 3});
  for (int64_t n = 0; n < 4; ++n) expected_VD[ids_N.flatten()[n].item<int64_t>()] += dy_ND[n];
  EXPECT_TRUE(at::equal(embedding_backward(dy_ND, ids_N.flatten(), 5), expected_VD));
  EXPECT_TRUE(at::equal(embedding_backward(dy_ND.t().contiguous().t(), ids_N.flatten(), 5), expected_VD));
}

}  // namespace retort::kernels
