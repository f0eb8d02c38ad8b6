#include "core/shape.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort {

TEST(Shape, ChecksEveryDimensionAndTheirNumber) {
  const at::Tensor x = at::zeros({2, 3});
  EXPECT_NO_THROW(check_shape("op", "x_ND", x, {2, 3}));
  EXPECT_NO_THROW(check_shape("op", "x_ND", x, {-1, 3}));
  EXPECT_THROW(check_shape("op", "x_ND", x, {2}), ShapeError);
  EXPECT_THROW(check_shape("op", "x_ND", at::Tensor(), {2}), ShapeError);
  try {
    check_shape("rms_norm", "weight_D", at::zeros({512}), {768});
    FAIL() << "did not throw";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "[rms_norm] weight_D must be [768], got [512]");
  }
  try {
    check_shape("op", "x_ND", at::zeros({4, 2}), {-1, 3});
    FAIL() << "did not throw";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(), "[op] x_ND must be [*, 3], got [4, 2]");
  }
}

}  // namespace retort
