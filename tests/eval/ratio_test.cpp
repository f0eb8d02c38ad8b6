#include "eval/ratio.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace retort::eval {

TEST(Ratio, HasTheErrorOfItsLinearPart) {
  // R = 15 / 6; residuals -0.5, -1, 1.5; sqrt(3 / 2 * 3.5) / 6.
  const Estimate made = ratio(std::vector<double>{2, 4, 9}, std::vector<double>{1, 2, 3});
  EXPECT_DOUBLE_EQ(made.value, 2.5);
  EXPECT_DOUBLE_EQ(made.standard_error, std::sqrt(5.25) / 6);
  EXPECT_EQ(ratio(std::vector<double>{2, 4}, std::vector<double>{1, 2}).standard_error, 0);
  EXPECT_TRUE(std::isnan(ratio(std::vector<double>{2}, std::vector<double>{1}).standard_error));
}

}  // namespace retort::eval
