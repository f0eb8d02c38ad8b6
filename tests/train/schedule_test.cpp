#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"

namespace retort::train {
namespace {

constexpr double kPeak = 3e-3;
constexpr int64_t kSteps = 110, kWarmup = 10;

ScheduleOptions options(const std::string& kind) {
  return {.kind = kind, .warmup = kWarmup, .decay = 0.2, .floor = 0.1};
}

double rate(const std::string& kind, int64_t step) {
  return learning_rate(options(kind), kPeak, step, kSteps);
}

}  // namespace

TEST(Schedule, WarmUpIsLinearAndEndsAtThePeakForEveryKind) {
  for (const std::string& kind : schedule_kinds()) {
    for (int64_t s = 0; s < kWarmup; ++s)
      EXPECT_DOUBLE_EQ(rate(kind, s), kPeak * static_cast<double>(s + 1) / 10.0) << kind;
    EXPECT_DOUBLE_EQ(rate(kind, kWarmup), kPeak) << kind;  // x = 0: the peak again
  }
}

TEST(Schedule, FollowsItsFormula) {
  for (int64_t s = kWarmup; s < kSteps; ++s) {
    const double x = static_cast<double>(s - 10) / 100.0;
    EXPECT_DOUBLE_EQ(rate("constant", s), kPeak);
    EXPECT_DOUBLE_EQ(rate("linear", s), kPeak * (1 - x));
    EXPECT_NEAR(rate("cosine", s), kPeak * (0.1 + 0.45 * (1 + std::cos(std::numbers::pi * x))), 1e-15);
    const double expected = s < 90 ? kPeak : kPeak * (1 - std::sqrt(static_cast<double>(s - 90) / 20.0));
    EXPECT_NEAR(rate("wsd", s), expected, 1e-9 * kPeak) << s;
  }
}

TEST(Schedule, EndPointsOfTheFall) {
  EXPECT_NEAR(rate("linear", kSteps - 1), kPeak * 0.01, 1e-15);  // 1 - 0.99 cancels
  EXPECT_DOUBLE_EQ(rate("wsd", 90), kPeak);
  EXPECT_NEAR(rate("wsd", kSteps - 1), kPeak * (1 - std::sqrt(0.95)), 1e-9 * kPeak);
  EXPECT_GT(rate("cosine", kSteps - 1), 0.1 * kPeak);
  EXPECT_LT(rate("cosine", kSteps - 1), 0.101 * kPeak);
}

TEST(Schedule, DegenerateRunsStillHaveARate) {
  EXPECT_DOUBLE_EQ(learning_rate({.kind = "linear", .warmup = 0}, 1.0, 0, 4), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate({.kind = "cosine", .warmup = 8}, 1.0, 3, 4), 0.5);  // all of it is warm-up
  EXPECT_DOUBLE_EQ(learning_rate({.kind = "wsd", .warmup = 0, .decay = 0.0}, 1.0, 3, 4), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate({.kind = "wsd", .warmup = 0, .decay = 1.0}, 1.0, 1, 4), 0.5);
}

// What a longer run may go on from.
TEST(Schedule, RunsOfTwoLengthsAreOneUntilTheirRatesPart) {
  const auto same = [](const char* kind, int64_t until, int64_t steps, int64_t longer) {
    return same_rates({.kind = kind, .warmup = 10, .decay = 0.2}, 0.1, until, steps, longer);
  };
  EXPECT_TRUE(same("constant", 110, 110, 210));
  EXPECT_FALSE(same("constant", 111, 110, 210)) << "the shorter one has no such update";
  EXPECT_TRUE(same("constant", 10, 10, 210)) << "it warms up to its end";
  EXPECT_FALSE(same("constant", 5, 9, 210)) << "its warm-up was shorter";
  EXPECT_TRUE(same("wsd", 91, 110, 210)) << "the fall begins at the peak";
  EXPECT_FALSE(same("wsd", 92, 110, 210));
  for (const char* kind : {"cosine", "linear"}) {
    EXPECT_TRUE(same(kind, 11, 110, 210)) << kind;
    EXPECT_FALSE(same(kind, 12, 110, 210)) << kind;
    EXPECT_TRUE(same(kind, 110, 110, 110)) << kind;
  }
}

TEST(Schedule, RefusesAnUnknownKindByName) {
  try {
    learning_rate({.kind = "cosin"}, 1.0, 100, 1000);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("cosine"), std::string::npos) << error.what();
  }
}

}  // namespace retort::train
