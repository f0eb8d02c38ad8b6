#include "distill/weight_schedule.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace retort::distill {
namespace {

TEST(WeightSchedule, MovesFromOneWeightToTheOther) {
  const WeightSchedule linear{.kind = "linear", .to = 0.0, .begin = 100, .end = 300};
  EXPECT_EQ(linear.at(2.0, 0), 2.0);
  EXPECT_EQ(linear.at(2.0, 100), 2.0);
  EXPECT_DOUBLE_EQ(linear.at(2.0, 150), 1.5);
  EXPECT_EQ(linear.at(2.0, 300), 0.0);
  EXPECT_EQ(linear.at(2.0, 10000), 0.0);
  const WeightSchedule cosine{.kind = "cosine", .to = 1.0, .begin = 0, .end = 100};
  EXPECT_EQ(cosine.at(0.0, 0), 0.0);
  EXPECT_DOUBLE_EQ(cosine.at(0.0, 50), 0.5);
  EXPECT_NEAR(cosine.at(0.0, 25), 0.146446609, 1e-9);  // (1 - cos(pi / 4)) / 2
  EXPECT_DOUBLE_EQ(cosine.at(0.0, 100), 1.0);
  EXPECT_EQ((WeightSchedule{.kind = "constant", .to = 9.0}).at(0.5, 77), 0.5);
}

TEST(WeightSchedule, ARampNeedsAnEnd) {
  EXPECT_THROW((WeightSchedule{.kind = "linear", .begin = 5, .end = 5}).check(), ConfigError);
  EXPECT_NO_THROW((WeightSchedule{.kind = "linear", .begin = 5, .end = 6}).check());
  EXPECT_NO_THROW(WeightSchedule{}.check());
}

}  // namespace
}  // namespace retort::distill
