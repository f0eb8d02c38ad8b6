#include "train/guard.h"

#include <gmock/gmock.h>

#include <cmath>

namespace retort::train {
namespace {

using ::testing::ElementsAre;

StepStats step_of(int64_t step, double loss, double norm, bool skipped = false) {
  StepStats stats;
  stats.step = step, stats.loss = loss, stats.gradient_norm = norm, stats.counted = 1,
  stats.skipped = skipped;
  return stats;
}

}  // namespace

TEST(Guard, LimitsFollowTheLastUpdates) {
  Guard guard({.zscore = 3, .window = 4}, 3);
  EXPECT_TRUE(std::isinf(guard.limits().loss));
  for (int64_t s = 0; s < 3; ++s) guard.take(step_of(s, 100, 100));
  EXPECT_TRUE(std::isinf(guard.limits().norm)) << "a window that is not full judges nothing";
  const double losses[] = {1, 2, 3, 4};
  for (int64_t s = 0; s < 4; ++s) guard.take(step_of(s + 3, losses[s], 2));
  guard.take(step_of(7, 1e9, 1e9, true));  // a spike does not count among them
  EXPECT_DOUBLE_EQ(guard.limits().loss, 2.5 + 3 * std::sqrt(1.25));
  EXPECT_DOUBLE_EQ(guard.limits().norm, 2.0);
  Guard off({}, 3);
  for (int64_t s = 0; s < 300; ++s) off.take(step_of(s, 1, 1));
  EXPECT_TRUE(std::isinf(off.limits().loss));
}

TEST(Guard, GoesBackAsOftenAsItMay) {
  Guard guard({.rollbacks = 2, .margin = 3}, 2);
  guard.take(step_of(4, NAN, NAN, true));
  guard.take(step_of(5, 1, 1));
  EXPECT_EQ(guard.in_a_row(), 0);
  guard.take(step_of(6, NAN, NAN, true));
  EXPECT_FALSE(guard.exceeded());
  guard.take(step_of(7, NAN, NAN, true));
  EXPECT_TRUE(guard.exceeded());
  EXPECT_EQ(guard.around().first, 3);
  EXPECT_EQ(guard.around().end, 11);
  Guard back({.rollbacks = 2, .margin = 3}, 2);
  back.leave_out(guard);
  EXPECT_TRUE(back.may_go_back());
  for (const int64_t step : {2, 3, 10, 11}) EXPECT_EQ(back.leaves_out(step), step == 3 || step == 10) << step;
  back.take(step_of(11, NAN, NAN, true));
  EXPECT_EQ(back.in_a_row(), 1) << "what was left out is not in the row";
  back.take(step_of(12, NAN, NAN, true));
  Guard again({.rollbacks = 2, .margin = 3}, 2);
  again.leave_out(back);
  EXPECT_FALSE(again.may_go_back());
  EXPECT_TRUE(again.leaves_out(3) && again.leaves_out(15));
}

TEST(Guard, ACheckpointKeepsAllThatDecides) {
  const GuardOptions options{.zscore = 2, .window = 3, .rollbacks = 1, .margin = 1};
  Guard later(options, 2), guard(options, 2), read(options, 2);
  later.take(step_of(8, NAN, NAN, true));
  guard.leave_out(later);
  for (int64_t s = 0; s < 3; ++s) guard.take(step_of(s, 1.0 / (3.0 + static_cast<double>(s)), 0.1));
  guard.take(step_of(3, 9, 9, true));
  formats::Json train;
  guard.write(train);
  read.read(formats::parse_json(train.dump(), "test"));
  EXPECT_THAT(read.skipped(), ElementsAre(3));
  EXPECT_EQ(read.in_a_row(), 1);
  EXPECT_EQ(read.limits().loss, guard.limits().loss);
  EXPECT_EQ(read.limits().norm, guard.limits().norm);
  EXPECT_TRUE(read.leaves_out(7) && read.leaves_out(9) && !read.leaves_out(10));
  formats::Json again, none;
  read.write(again);
  EXPECT_EQ(again, train);
  Guard({}, 3).write(none);
  EXPECT_EQ(none.size(), 1u) << none;  // runs without a guard keep their bytes
}

}  // namespace retort::train
