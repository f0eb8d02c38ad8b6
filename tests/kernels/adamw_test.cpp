#include "kernels/adamw.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "kernels/row_blocks.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

constexpr AdamwStep kStep = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .t = 3};

at::Tensor normal(at::IntArrayRef shape, const char* name) {
  at::Tensor x = at::empty(shape);
  Random(4, name).fill_normal(x, 0.5);
  return x;
}

AdamwTensor sample(at::IntArrayRef shape, RowBlocks blocks) {
  return {
      normal(shape, "p"), normal(shape, "m"), normal(shape, "v").square(), normal(shape, "g"), blocks, 0.1};
}

}  // namespace

TEST(AdamwKernel, FollowsTheFormula) {
  const AdamwTensor x = sample({103, 211}, {0, 103, 90});
  const at::Tensor g = x.gradient.to(at::kDouble);
  const at::Tensor m = 0.9 * x.m.to(at::kDouble) + 0.1 * g, v = 0.95 * x.v.to(at::kDouble) + 0.05 * g * g;
  const at::Tensor p =
      x.p.to(at::kDouble) * (1 - 1e-2 * 0.1) -
      1e-2 * (m / (1 - std::pow(0.9, 3))) / (v.sqrt() / std::sqrt(1 - std::pow(0.95, 3)) + 1e-8);
  adamw({x}, kStep);
  // About ten roundings, each of at most 2^-24 of a value no larger than the weights.
  EXPECT_LE(testing::relative_error(x.p.to(at::kDouble), p), 10 * 0x1p-24);
  EXPECT_LE(testing::relative_error(x.m.to(at::kDouble), m), 10 * 0x1p-24);
  EXPECT_LE(testing::relative_error(x.v.to(at::kDouble), v), 10 * 0x1p-24);
}

// The rows of a block end as they would in any other division into blocks, and no other row is touched.
TEST(AdamwKernel, StepsTheRowsOfItsBlocks) {
  const AdamwTensor whole = sample({300, 131}, {0, 300, 300}), part = sample({300, 131}, {130, 290, 70}),
                    before = sample({300, 131}, {});
  adamw({whole}, kStep);
  adamw({part}, kStep);
  for (at::Tensor AdamwTensor::*member : {&AdamwTensor::p, &AdamwTensor::m, &AdamwTensor::v})
    for (int64_t row = 0; row < 300; ++row) {
      const bool owned = row >= 130 && row < 290;
      EXPECT_TRUE(testing::same_bits((part.*member)[row], ((owned ? whole : before).*member)[row])) << row;
    }
}

// A verdict's factor is the same as gradients that were multiplied before, and one against the step leaves no trace.
TEST(AdamwKernel, TakesTheVerdict) {
  const AdamwTensor judged = sample({300, 131}, {0, 300, 300}), clipped = sample({300, 131}, {0, 300, 300}),
                    left = sample({300, 131}, {0, 300, 300}), before = sample({300, 131}, {});
  const double factor = static_cast<float>(0.3);
  adamw({judged}, kStep, at::tensor({7.0, factor, 1.0}, at::kDouble));
  clipped.gradient.mul_(factor);
  adamw({clipped}, kStep);
  adamw({left}, kStep, at::tensor({NAN, 1.0, 0.0}, at::kDouble));
  for (at::Tensor AdamwTensor::*member : {&AdamwTensor::p, &AdamwTensor::m, &AdamwTensor::v}) {
    EXPECT_TRUE(testing::same_bits(judged.*member, clipped.*member));
    EXPECT_TRUE(testing::same_bits(left.*member, before.*member));
  }
  EXPECT_THROW(adamw({left}, kStep, at::ones({3})), ShapeError);
}

TEST(AdamwKernel, RefusesWhatItCannotRead) {
  for (at::Tensor AdamwTensor::*member :
       {&AdamwTensor::p, &AdamwTensor::m, &AdamwTensor::v, &AdamwTensor::gradient})
    for (const at::Tensor& wrong : {at::empty({4, 6}, at::kMeta), at::empty({4, 6}, at::kDouble),
                                    at::empty({6, 4}).t(), at::Tensor()}) {
      AdamwTensor x = sample({4, 6}, {0, 4, 4});
      x.*member = wrong;
      EXPECT_THROW(adamw({x}, kStep), ShapeError);
    }
  AdamwTensor reshaped = sample({4, 6}, {0, 4, 4});
  reshaped.gradient = at::zeros({6, 4});
  EXPECT_THROW(adamw({reshaped}, kStep), ShapeError);
}

}  // namespace retort::kernels
