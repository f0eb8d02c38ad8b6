// The device's values of a grid against quantize/grid.h's, bit for bit.
#include <gtest/gtest.h>

#include "kernels/magnitudes.h"
#include "quantize/grid.h"

#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Fit;
using kernels::cuda::GridRule;
using kernels::cuda::Ops;
using kernels::cuda::Rule;

GridRule rule_of(const kernels::Rounding& r) {
  constexpr Rule kRules[] = {Rule::kNearestEven, Rule::kNearestAway, Rule::kTruncate,   Rule::kOdd,
                             Rule::kSign,        Rule::kFloat4,      Rule::kFloat4Even, Rule::kFloat8};
  return {kRules[static_cast<int>(r.rule)], r.lowest, r.highest};
}

// Normal weights, and groups that are hard: zeros, one value, equal extremes of both signs in both orders, ties,
// numbers too small for a half, and some too large.
at::Tensor weights(int64_t rows, int64_t width) {
  at::Tensor x = normal({rows, width}, 1, 0.05).to(at::kFloat).contiguous();
  at::Tensor groups = x.view({-1, 32});
  groups[0].zero_();
  groups[1].zero_();
  groups[1][7] = -0.0f;
  groups[2].fill_(1.5f);
  groups[3][5] = 2.0f, groups[3][9] = -2.0f;
  groups[4][5] = -2.0f, groups[4][9] = 2.0f;
  groups[5].copy_(at::arange(32, at::kFloat) * 0.5f - 8.0f);
  groups[6].mul_(1e-9f);
  groups[7].mul_(1e7f);
  groups[8].mul_(1e-42f);
  groups[9][31] = -0.25f, groups[9][0] = 0.25f;
  return x;
}

void expect_grid(const std::string& name, const at::Tensor& x, const KernelRun& run) {
  const quantize::Grid& grid = quantize::grids().at(name);
  const at::Tensor want = at::empty_like(x);
  grid.fake_quantize(x, want);
  everywhere(name, run, [&](const Tensors& got) {
    EXPECT_TRUE(same_bits(got[0], want))
        << name << ", " << (got[0] != want).sum().item<int64_t>() << " differ";
    // Groups too large for a half are 0 times infinity; a device's bf16 NaN has other bits.
    EXPECT_TRUE(same_bits(got[1].nan_to_num(0.5), want.to(at::kBFloat16).nan_to_num(0.5))) << name;
  });
}

TEST(CudaFakeQuantize, GroupsAreTheGridsBitForBit) {
  struct Case {
    const char* name;
    Fit fit;
    int64_t group;
    double half_range;
  };
  for (const Case& c : {Case{"q8_0", Fit::kQ8_0, 32, 0}, Case{"q4_0", Fit::kQ4_0, 32, 0},
                        Case{"int4_g32", Fit::kInteger, 32, 7.5}, Case{"int4_g128", Fit::kInteger, 128, 7.5}})
    for (const int64_t rows : {5, 37}) {
      const at::Tensor x = weights(rows, 384);
      const GridRule rule = rule_of(quantize::grids().at(c.name).rounding);
      expect_grid(c.name, x, [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor input = placed(x, device);
        return {ops.fake_quantize(c.fit, rule, c.half_range, c.group, input),
                ops.fake_quantize(c.fit, rule, c.half_range, c.group, input, at::kBFloat16)};
      });
    }
}

// Grids with one scale a row, which the CPU fits: learned ones and those of whole rows.
TEST(CudaFakeQuantize, RowsAreTheGridsBitForBit) {
  for (const char* name :
       {"lsq4", "lsq3", "seq2", "seq_ternary", "ternary", "ternary_row", "binary", "int8_row", "int4_row"})
    for (const int64_t width : {256, 768, 4352}) {
      const at::Tensor x = weights(width > 1000 ? 2 : 7, width);
      const quantize::Grid& grid = quantize::grids().at(name);
      const at::Tensor scales = grid.fit(x, {}).scale.contiguous();
      ASSERT_EQ(scales.numel(), x.size(0)) << name;
      expect_grid(name, x, [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor input = placed(x, device), given = placed(scales, device);
        return {ops.fake_quantize_rows(rule_of(grid.rounding), input, given),
                ops.fake_quantize_rows(rule_of(grid.rounding), input, given, at::kBFloat16)};
      });
    }
}

// Every rule of kernels/block_codes.h on numbers between, on and beyond its codes, under ordinary scales and 0.
TEST(CudaFakeQuantize, RulesAreTheCpusBitForBit) {
  using kernels::RoundRule;
  const std::vector<kernels::Rounding> roundings = {{RoundRule::kNearestEven, -8, 7},
                                                    {RoundRule::kNearestEven, -1, 1},
                                                    {RoundRule::kNearestAway, -127, 127},
                                                    {RoundRule::kTruncate, -8, 7},
                                                    {RoundRule::kOdd, -3, 3},
                                                    {RoundRule::kSign, -1, 1},
                                                    {RoundRule::kFloat4, -12, 12},
                                                    {RoundRule::kFloat4Even, -12, 12},
                                                    {RoundRule::kFloat8, 0, 0}};
  for (const int64_t width : {31, 1056}) {
    at::Tensor x =
        at::cat({at::linspace(-16.0, 16.0, width, at::kFloat), normal({3 * width}, 1, 200.0).to(at::kFloat)})
            .view({4, width})
            .contiguous();
    x[1][0] = INFINITY, x[1][1] = -INFINITY, x[1][2] = -0.0f, x[1][3] = 1e-40f, x[1][4] = NAN;
    const at::Tensor scales = at::tensor({1.0f, 0.37f, 0.0f, 3e-5f}).view({4, 1});
    for (const kernels::Rounding& r : roundings) {
      at::Tensor want = at::empty_like(x);
      kernels::round_values(x, {scales, {}, {}, {}}, r, want);
      everywhere(
          "rule",
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            return {ops.fake_quantize_rows(rule_of(r), placed(x, device), placed(scales, device))};
          },
          [&](const Tensors& got) {
            // Of NaNs only that they are ones.
            EXPECT_TRUE(at::equal(got[0].isnan(), want.isnan())) << static_cast<int>(r.rule);
            EXPECT_TRUE(same_bits(got[0].nan_to_num(0.5), want.nan_to_num(0.5))) << static_cast<int>(r.rule);
          });
    }
  }
}

TEST(CudaRowMagnitudes, AreTheCpusBitForBit) {
  for (const int64_t width : {1, 8, 31, 255, 256, 257, 1000, 4096, 5003})
    for (const int64_t rows : {1, 9}) {
      const at::Tensor x = normal({rows, width}, 1).to(at::kFloat);
      everywhere(
          "magnitudes",
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            const at::Tensor input = placed(x, device);
            return {ops.row_magnitudes(input, false), ops.row_magnitudes(input, true)};
          },
          [&](const Tensors& got) {
            EXPECT_TRUE(same_bits(got[0], kernels::group_peaks(x, width))) << width;
            EXPECT_TRUE(same_bits(got[1], kernels::row_means(x))) << width;
          });
    }
}

}  // namespace
}  // namespace retort::testing
