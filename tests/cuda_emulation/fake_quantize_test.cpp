// The device's values of a grid, and the gradient of its learned scales, against quantize/grid.h's, bit for bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "kernels/learned_rounding.h"
#include "quantize/device_fit.h"
#include "quantize/learned_scale.h"

#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;
using quantize::Grid;

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

// What no training should meet: infinities, and NaN of both signs, alone in a group and among others.
at::Tensor strange(int64_t rows, int64_t width) {
  at::Tensor x = weights(rows, width).flip(0).contiguous();
  at::Tensor groups = x.view({-1, 32});
  groups[1][3] = INFINITY;
  groups[3][30] = -INFINITY;
  groups[5][0] = INFINITY, groups[5][1] = -INFINITY;
  groups[7][31] = NAN;
  groups[9][2] = -NAN, groups[9][3] = INFINITY;
  groups[11].fill_(NAN);
  return x;
}

// Equal bits; of NaNs, of which a device has others, that they are ones.
void expect_same(const at::Tensor& got, const at::Tensor& want, const std::string& what) {
  EXPECT_TRUE(at::equal(got.isnan(), want.isnan())) << what;
  EXPECT_TRUE(same_bits(got.nan_to_num(0.5), want.nan_to_num(0.5)))
      << what << ", " << (got != want).sum().item<int64_t>() << " differ";
}

// y in both dtypes, by round(ops, input, y).
template <class Round>
KernelRun in_both(const at::Tensor& x, const Round& round) {
  return [&x, round](const Ops& ops, const at::Device& device) -> Tensors {
    const at::Tensor input = placed(x, device);
    Tensors out;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      out.push_back(at::empty(x.sizes(), input.options().dtype(dtype)));
      round(ops, input, out.back());
    }
    return out;
  };
}

void expect_grid(const std::string& what, const at::Tensor& want, const KernelRun& run) {
  everywhere(what, run, [&](const Tensors& got) {
    expect_same(got[0], want, what);
    expect_same(got[1], want.to(at::kBFloat16), what + " in bf16");
  });
}

// Every grid whose scales follow from the values by a formula that kernels have: those that training is known to take.
TEST(CudaFakeQuantize, GridsThatFitThemselvesAreTheCpusBitForBit) {
  std::vector<std::string> names;
  for (const Grid& grid : quantize::grids()) {
    const auto fit = quantize::device_fit(grid);
    if (!fit) continue;
    names.push_back(grid.name);
    for (const at::Tensor& x : {weights(5, 384), strange(5, 384), weights(37, 256), strange(2, 4352)}) {
      if (x.size(1) % grid.block != 0) continue;
      const at::Tensor want = at::empty_like(x);
      grid.fake_quantize(x, want);
      expect_grid(fmt::format("{} {} {}", grid.name, x.size(0), x.size(1)), want,
                  in_both(x, [&](const Ops& ops, const at::Tensor& input, const at::Tensor& y) {
                    ops.fake_quantize(*fit, grid.rounding, input, y);
                  }));
    }
  }
  EXPECT_EQ(names, (std::vector<std::string>{"q8_0", "q4_0", "q4_1", "ternary", "ternary_row", "int8_row",
                                             "int4_row", "int4_g32", "int4_g128", "fp8"}));
}

// Rows that begin anywhere, and whose ends meet no run of the kernels.
TEST(CudaFakeQuantize, RowsOfAnyLengthAreTheCpus) {
  for (const char* name : {"fp8", "int8_row", "ternary", "ternary_row"}) {
    const Grid& grid = quantize::grids().at(name);
    for (const int64_t width : {1, 31, 33, 255, 257, 1000, 5003})
      for (const int64_t rows : {1, 9}) {
        at::Tensor x = normal({rows, width}, 1).to(at::kFloat);
        x[0].mul_(1e9);
        const at::Tensor want = at::empty_like(x);
        grid.fake_quantize(x, want);
        expect_grid(fmt::format("{} {} {}", name, rows, width), want,
                    in_both(x, [&](const Ops& ops, const at::Tensor& input, const at::Tensor& y) {
                      ops.fake_quantize(*quantize::device_fit(grid), grid.rounding, input, y);
                    }));
      }
  }
}

// Rows from 1e-12 to 1e12.
TEST(CudaFakeQuantize, MeansOfUnequalRowsAreTheCpus) {
  for (const int64_t rows : {1, 7, 256, 700}) {
    const at::Tensor sizes = at::pow(10.0, at::linspace(-12.0, 12.0, rows, at::kDouble)).unsqueeze(1);
    const at::Tensor x =
        (normal({rows, 520}, 1) * sizes * at::pow(10.0, normal({1, 520}, 2) * 4)).to(at::kFloat);
    for (const char* name : {"ternary", "ternary_row"}) {
      const Grid& grid = quantize::grids().at(name);
      everywhere(
          name,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            return {ops.row_scales(quantize::device_fit(grid)->fit, placed(x, device))};
          },
          [&](const Tensors& got) { expect_same(got[0], grid.fit(x, {}).scale, name); });
    }
  }
}

// --- learned scales

std::vector<const Grid*> learned_grids() {
  std::vector<const Grid*> out;
  for (const Grid& grid : quantize::grids())
    if (grid.learned) out.push_back(&grid);
  return out;
}

TEST(CudaLearnedScales, AreTheCpusBitForBit) {
  for (const int64_t n : {1, 31, 33, 5000}) {
    at::Tensor theta = at::linspace(-13.0, 13.0, n, at::kFloat).view({n, 1}).contiguous();
    if (n > 6) {
      theta[1] = NAN, theta[2] = INFINITY, theta[3] = -INFINITY, theta[4] = -0.0f, theta[5] = 1e-40f;
    }
    everywhere(
        "learned_scales",
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          return {ops.learned_scales(placed(theta, device))};
        },
        [&](const Tensors& got) { expect_same(got[0], kernels::learned_scales(theta), "scales"); });
  }
}

TEST(CudaLearnedScales, ValuesAndGradientsAreTheCpusBitForBit) {
  for (const Grid* grid : learned_grids())
    for (const auto& [rows, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 31}, {9, 257}, {2, 260}, {7, 5003}, {5, 4352}}) {
      const std::string what = fmt::format("{} {} {}", grid->name, rows, width);
      at::Tensor x = normal({rows, width}, 1, 0.05).to(at::kFloat),
                 g = normal({rows, width}, 2).to(at::kFloat);
      if (width > 40) {
        x[0][0] = 0.0f, x[0][1] = -0.0f, x[0][2] = 1e-42f, x[0][3] = 1e30f;
        x[0][width - 1] = -1e30f, x[0][7] = INFINITY;
        g[0][3] = INFINITY, g[0][4] = -0.0f, g[0][5] = 1e-42f;
        if (rows > 1) x[1][40] = NAN, g[1][39] = NAN;
        // Terms so unequal that f64 sums round, and their order is seen.
        g[rows - 1].mul_(at::pow(10.0, normal({width}, 3) * 6));
      }
      at::Tensor theta =
          quantize::theta_of(grid->fit(normal({rows, width}, 1, 0.05).to(at::kFloat), {})) - 0.4;
      const quantize::Scales scales = quantize::learned_scales(theta);
      at::Tensor want = at::empty_like(x), dx = at::empty_like(x);
      kernels::round_values(x, scales, grid->rounding, want);
      const quantize::LearnedRule& learned = *grid->learned;
      const kernels::LearnedRounding rule{grid->rounding, learned.low, learned.high, learned.follows};
      const at::Tensor sums = kernels::round_backward(x, scales.scale, g, rule, dx);
      expect_grid(what, want, in_both(x, [&](const Ops& ops, const at::Tensor& input, const at::Tensor& y) {
                    ops.fake_quantize_rows(grid->rounding, input, placed(scales.scale, input.device()), y);
                  }));
      for (const int64_t offset : {0, 1})
        everywhere(
            what,
            [&](const Ops& ops, const at::Device& device) -> Tensors {
              const at::Tensor in_place = placed(g, device, offset);
              const at::Tensor out = ops.round_backward(
                  placed(x, device, offset), placed(scales.scale, device), in_place, rule, in_place);
              return {in_place, out};
            },
            [&](const Tensors& got) {
              expect_same(got[0], dx, what + ": gradient");
              expect_same(got[1], sums, what + ": the scales' gradient");
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
            const at::Tensor input = placed(x, device), y = at::empty_like(input);
            ops.fake_quantize_rows(r, input, placed(scales, device), y);
            return {y};
          },
          [&](const Tensors& got) {
            expect_same(got[0], want, fmt::format("rule {}", static_cast<int>(r.rule)));
          });
    }
  }
}

}  // namespace
}  // namespace retort::testing
