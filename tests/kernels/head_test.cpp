#include "kernels/head.h"

#include <gtest/gtest.h>

#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using testing::normal;

TEST(Head, MultipliesInTheWeightsDtypeAndCapsInTheResults) {
  const at::Tensor h = normal({2, 5, 16}, 1).to(at::kFloat), w = normal({7, 16}, 2).to(at::kFloat);
  EXPECT_TRUE(testing::same_bits(Head(w).logits(h), at::matmul(h, w.t())));
  for (const auto product : {at::kFloat, at::kBFloat16})
    for (const auto result : {at::kFloat, at::kDouble}) {
      const at::Tensor z = at::matmul(h.to(product), w.to(product).t()).to(result);
      const at::Tensor capped = Head(w.to(product), 3.0).logits(h, result);
      EXPECT_EQ(capped.scalar_type(), result);
      EXPECT_TRUE(testing::same_bits(capped, at::tanh(z / 3.0) * 3.0)) << product << " " << result;
    }
}

TEST(Head, CapsInPlaceOrNotAtAll) {
  at::Tensor z = normal({3, 4}, 1, 5.0).to(at::kFloat);
  const at::Tensor before = z.clone();
  Head(at::Tensor()).cap(z);
  EXPECT_TRUE(testing::same_bits(z, before));
  Head(at::Tensor(), 2.0).cap(z);
  EXPECT_TRUE(testing::same_bits(z, at::tanh(before / 2.0) * 2.0));
}

}  // namespace
}  // namespace retort::kernels
