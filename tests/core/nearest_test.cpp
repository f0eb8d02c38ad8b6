#include "core/nearest.h"

#include <gtest/gtest.h>

namespace retort {

TEST(Nearest, SuggestsWithinAThirdOfTheLength) {
  const std::vector<std::string> known = {"weight_decay", "kind", "warmup", "lr"};
  EXPECT_EQ(nearest_name("wieght_decay", known), "weight_decay");
  EXPECT_EQ(nearest_name("warm_up", known), "warmup");
  EXPECT_EQ(nearest_name("dim", known), "");  // "kind" is too far to help
  EXPECT_EQ(nearest_name("", known), "");
  EXPECT_EQ(did_you_mean("kinds", known), "; did you mean \"kind\"?");
  EXPECT_EQ(did_you_mean("zzz", known), "");
}

TEST(Nearest, TakesTheFirstOfEquals) {
  const std::vector<std::string> known = {"stepa", "stepb"};
  EXPECT_EQ(nearest_name("stepc", known), "stepa");
}

}  // namespace retort
