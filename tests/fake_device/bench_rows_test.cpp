// The rows of bench_device on a device that the host cannot read, so that a GPU is not the first to run them on one.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "bench/device_table.h"
#include "tests/fake_device/fake_device.h"

namespace retort::bench {
namespace {

using ::testing::HasSubstr, ::testing::Not;

// What `print` prints in small sizes; nothing of it is wrong.
std::string printed(const std::function<void(Table& table)>& print) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  ::testing::internal::CaptureStdout();
  Table table({testing::fake_device(), true});
  EXPECT_NO_THROW(print(table));
  const bool right = table.foot();
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_TRUE(right) << out;
  return out;
}

TEST(BenchRows, KernelsAreRightOnADevice) {
  const auto print = [](Table& table) {
    const kernels::cuda::Ops* ops = kernels::cuda::ops_for(at::empty({1}, table.place().options()));
    ASSERT_NE(ops, nullptr);
    print_rows(table, *ops, kernel_rows());
    print_rows(table, *ops, grid_rows());
  };
  EXPECT_THAT(printed(print), HasSubstr("27 rows: 0 wrong; of 11 targets"));
}

TEST(BenchRows, LossLayersAreRightOnADevice) {
  EXPECT_THAT(printed(print_loss_layers), HasSubstr("5 rows: 0 wrong; of 4 targets"));
}

// The four that ask for graphs have them, the student's with its teacher's pass within, and so have the two plain ones beside.
TEST(BenchRows, StepsAreRightAndRepeatGraphs) {
  const testing::Watch watch;
  EXPECT_THAT(printed(print_steps), HasSubstr("6 rows: 0 wrong; of 6 targets"));
  const testing::Traffic traffic = watch.traffic();
  EXPECT_EQ(traffic.graphs, 6);
  EXPECT_GT(traffic.replays, 6);
}

// A result that is off, or not there, is told and fails the whole.
TEST(BenchRows, WhatIsWrongIsNamed) {
  ::testing::internal::CaptureStdout();
  Table table({at::kCPU, true});
  table.print({.name = "off", .error = 0.5, .allowed = 0.25});
  table.print({.name = "nan", .error = error_of({at::full({2}, NAN)}, {at::ones({2})}), .allowed = 0.25});
  table.print({.name = "late", .fault = "no graph", .target = Target{0.84, 0.85, true, "copy", true}});
  table.print(
      {.name = "right", .error = 0.25, .allowed = 0.25, .target = Target{1.15, 1.15, false, "plain"}});
  EXPECT_FALSE(table.foot());
  const std::string out = ::testing::internal::GetCapturedStdout();
  EXPECT_THAT(out, HasSubstr("| off | - | 5.0e-01 WRONG | "));
  EXPECT_THAT(out, HasSubstr("| nan | - | inf WRONG | "));
  EXPECT_THAT(out, HasSubstr("WRONG no graph | - | - | - | - | >= 85.0 % of copy | missed: 84.0 % |"));
  EXPECT_THAT(out, HasSubstr("| 2.5e-01 | - | - | - | - | <= 1.150 x plain | met: 1.150 x |"));
  EXPECT_THAT(out, HasSubstr("4 rows: 3 wrong; of 2 targets 1 met, 1 missed"));
}

}  // namespace
}  // namespace retort::bench
