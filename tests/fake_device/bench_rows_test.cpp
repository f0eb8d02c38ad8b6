// The rows of bench_device on a device that the host cannot read, so that a GPU is not the first to run them on one.
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include <iterator>
#include <set>

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

using Kernels = kernels::cuda::Table;

// What was called of a table: its entries by name, and which kinds of those that have several.
struct Called {
  std::set<std::string> entries;
  std::set<int> gates, losses, fits, forms;
};
Called& called() {
  static Called all;
  return all;
}
template <class T>
void note(const T&) {}
void note(const kernels::Gate& gate) { called().gates.insert(static_cast<int>(gate)); }
void note(const kernels::Fit& fit) { called().fits.insert(static_cast<int>(fit)); }
void note(const kernels::cuda::GroupGrid& grid) { note(grid.fit); }
void note(const kernels::cuda::PackedBlocks& packed) { called().forms.insert(static_cast<int>(packed.form)); }
void note(const kernels::cuda::RowLosses& rows) {
  if (rows.cross_entropy_of != nullptr)
    called().losses.insert(static_cast<int>(kernels::cuda::RowLossKind::kCrossEntropy));
  for (int i = 0; i < rows.count; ++i) called().losses.insert(static_cast<int>(rows.terms[i].kind));
}

// An entry that notes its call and hands it on.
template <auto entry>
struct Noted;
template <class... Arguments, void (*Kernels::*entry)(Arguments...)>
struct Noted<entry> {
  static inline const char* name = nullptr;
  static void call(Arguments... arguments) {
    called().entries.insert(name);
    (note(arguments), ...);
    (kernels::cuda::emulated::table().*entry)(arguments...);
  }
};
template <auto entry>
void note_calls(Kernels& table, const char* name) {
  Noted<entry>::name = name;
  table.*entry = &Noted<entry>::call;
}
struct Entry {
  const char* name;
  void (*note_calls)(Kernels& table, const char* name);
};
constexpr Entry kEntries[] = {{"rms_norm", note_calls<&Kernels::rms_norm>},
                              {"rms_norm_backward", note_calls<&Kernels::rms_norm_backward>},
                              {"layer_norm", note_calls<&Kernels::layer_norm>},
                              {"layer_norm_backward", note_calls<&Kernels::layer_norm_backward>},
                              {"gate", note_calls<&Kernels::gate>},
                              {"gate_backward", note_calls<&Kernels::gate_backward>},
                              {"rope", note_calls<&Kernels::rope>},
                              {"row_losses", note_calls<&Kernels::row_losses>},
                              {"sum_parts", note_calls<&Kernels::sum_parts>},
                              {"tree_sum", note_calls<&Kernels::tree_sum>},
                              {"embedding_backward", note_calls<&Kernels::embedding_backward>},
                              {"squares", note_calls<&Kernels::squares>},
                              {"judge", note_calls<&Kernels::judge>},
                              {"adamw", note_calls<&Kernels::adamw>},
                              {"adamw_on_grid", note_calls<&Kernels::adamw_on_grid>},
                              {"fake_quantize_groups", note_calls<&Kernels::fake_quantize_groups>},
                              {"fake_quantize_rows", note_calls<&Kernels::fake_quantize_rows>},
                              {"fake_quantize_fitted_rows", note_calls<&Kernels::fake_quantize_fitted_rows>},
                              {"row_scales", note_calls<&Kernels::row_scales>},
                              {"learned_scales", note_calls<&Kernels::learned_scales>},
                              {"round_backward", note_calls<&Kernels::round_backward>},
                              {"unpack", note_calls<&Kernels::unpack>}};
static_assert(sizeof(Kernels) == (1 + std::size(kEntries)) * sizeof(const char*), "an entry is not listed");

Kernels noted_kernels() {
  Kernels table = kernels::cuda::emulated::table();
  for (const Entry& one : kEntries) one.note_calls(table, one.name);
  return table;
}
void enqueue(const at::Tensor& on, const std::function<void(kernels::cuda::Stream)>& kernels) {
  static const at::Tensor there = at::empty({1}, at::device(testing::fake_device()).dtype(at::kFloat));
  kernels::cuda::ops_for(there)->enqueue(on, kernels);
}

// Kinds are numbered from 0 on.
template <class Kind>
auto all_up_to(Kind last) {
  std::set<int> kinds;
  for (int i = 0; i <= static_cast<int>(last); ++i) kinds.insert(i);
  return ::testing::ContainerEq(kinds);
}

// Every kernel has a row, and so has each kind of gate, loss, fit and packed form.
TEST(BenchRows, KernelsAreRightOnADeviceAndNoneIsLeftOut) {
  const Kernels table = noted_kernels();
  const kernels::cuda::Ops ops(table, enqueue);
  called() = {};
  const auto print = [&](Table& rows) {
    print_rows(rows, ops, kernel_rows());
    print_rows(rows, ops, grid_rows());
  };
  EXPECT_THAT(printed(print), HasSubstr("43 rows: 0 wrong; of 15 targets"));
  for (const Entry& one : kEntries) EXPECT_EQ(called().entries.count(one.name), 1u) << one.name;
  EXPECT_THAT(called().gates, all_up_to(kernels::Gate::kRelu2));
  EXPECT_THAT(called().losses, all_up_to(kernels::cuda::RowLossKind::kLabels));
  EXPECT_THAT(called().fits, all_up_to(kernels::Fit::kMeanOfAll));
  EXPECT_THAT(called().forms, all_up_to(kernels::PackedForm::kNf4));
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
