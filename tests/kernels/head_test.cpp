#include "kernels/head.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "kernels/product.h"
#include "kernels/thin_product.h"
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
      const at::Tensor z = linear_product(h.to(product), w.to(product), {}).to(result);  // as a layer does
      const at::Tensor capped = Head(w.to(product), 3.0).logits(h, result);
      EXPECT_EQ(capped.scalar_type(), result);
      EXPECT_TRUE(testing::same_bits(capped, at::tanh(z / 3.0) * 3.0)) << product << " " << result;
    }
}

// As decoding does: a row alone has the bits that it has among others, and bf16 weights round no states.
TEST(Head, TakesTheThinProductOfFewRows) {
  const at::NoGradGuard no_grad;
  const at::Tensor h = normal({8, 33}, 1).to(at::kFloat), w = normal({70, 33}, 2).to(at::kBFloat16);
  const at::Tensor logits = Head(w).logits(h);
  EXPECT_TRUE(testing::same_bits(logits, thin_product(h, w)));
  EXPECT_TRUE(testing::same_bits(Head(w).logits(h.narrow(0, 3, 1)), logits.narrow(0, 3, 1)));
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
