#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "tests/kernels/block_squares.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using Gradients = std::vector<BlockedGradient>;

double gradient_norm(const Gradients& gradients) { return norm_of(block_squares(gradients)); }

BlockedGradient whole(const at::Tensor& values, int64_t rows_of_a_block = 7) {
  return {values, {0, values.size(0), rows_of_a_block}};
}

Gradients gradients() {
  Gradients out{whole(at::empty({3})), whole(at::empty({501, 203})), whole(at::empty({8, 2}))};
  for (size_t i = 0; i < out.size(); ++i) Random(3, "gradient", i).fill_normal(out[i].values, 2.0);
  return out;
}

double halves(std::vector<double> x) {
  for (size_t half = x.size() / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

// The sum of squares of f64 elements in the order that the header gives.
double block_sum(const at::Tensor& rows) {
  const double* x = rows.const_data_ptr<double>();
  double sum = 0;
  for (int64_t piece = 0; piece < rows.numel(); piece += 4096) {
    std::vector<double> sums(2048), of_eight;
    for (int64_t i = piece; i < std::min(piece + 4096, rows.numel()); ++i)
      sums[static_cast<size_t>(i - piece) % 2048] += x[i] * x[i];
    for (const double* s = sums.data(); s < sums.data() + sums.size(); s += 8)
      of_eight.push_back(((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7])));
    std::vector<double> of_warp;
    for (auto at = of_eight.begin(); at < of_eight.end(); at += 32) of_warp.push_back(halves({at, at + 32}));
    sum += halves(of_warp);
  }
  return sum;
}

}  // namespace

TEST(GradientNorm, IsTheRootOfAllSquares) {
  double squares = 0;
  for (const BlockedGradient& g : gradients())
    squares += g.values.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(gradient_norm(gradients()), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  EXPECT_EQ(gradient_norm({whole(at::full({2}, 3.0)), whole(at::ones({7}))}), 5.0);
}

// What ranks that own some of the blocks each exchange are sums of blocks. Added in declaration order they give
// the norm's bits, and another order gives others.
TEST(GradientNorm, AddsTheSumsOfBlocksInOrder) {
  const Gradients all = gradients();
  std::vector<double> sums;
  for (const auto& [values, blocks] : all)
    for (int64_t b = 0; b < blocks.count(); ++b) {
      const double norm = gradient_norm({{values, {blocks[b].begin, blocks[b].end, blocks.step}}});
      const at::Tensor rows = values.slice(0, blocks[b].begin, blocks[b].end).to(at::kDouble);
      sums.push_back(block_sum(rows.contiguous()));
      EXPECT_EQ(norm, std::sqrt(sums.back()));
    }
  ASSERT_GT(sums.size(), 70u);
  const double total = std::accumulate(sums.begin(), sums.end(), 0.0);
  EXPECT_EQ(gradient_norm(all), std::sqrt(total));
  EXPECT_NE(std::accumulate(sums.rbegin(), sums.rend(), 0.0), total)
      << "an order that the test would not see";
}

TEST(GradientNorm, CountsTheRowsOfItsBlocksOnly) {
  const at::Tensor x = at::ones({10, 4});
  x.slice(0, 0, 3).fill_(100.0);
  EXPECT_EQ(gradient_norm({{x, {3, 7, 3}}}), 4.0);
}

TEST(GradientNorm, DoesNotOverflowAndTellsOfTheNonFinite) {
  EXPECT_NEAR(gradient_norm({whole(at::full({4}, 3e38))}) / 6e38, 1.0, 1e-7);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gradient_norm({whole(at::zeros({9})), whole(at::full({1}, nan))})));
  EXPECT_TRUE(std::isinf(gradient_norm({whole(at::full({1}, std::numeric_limits<double>::infinity()))})));
}

TEST(GradientNorm, RefusesWhatItCannotRead) {
  EXPECT_THROW(gradient_norm({whole(at::empty({3}, at::kMeta))}), ShapeError);
  EXPECT_THROW(gradient_norm({whole(at::zeros({3}, at::kDouble))}), ShapeError);
  EXPECT_THROW(gradient_norm({whole(at::zeros({3, 2}).t())}), ShapeError);
}

TEST(GradientNorm, TakesNoPartOfTheThreadCount) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const double one = gradient_norm(gradients());
  at::set_num_threads(3);
  const double three = gradient_norm(gradients());
  at::set_num_threads(before);
  EXPECT_EQ(one, three);
}

TEST(GradientNorm, TheVerdictClipsAboveTheLimitAndStopsAtWhatIsNotFinite) {
  const Gradients all = gradients();
  const double norm = gradient_norm(all), nan = std::numeric_limits<double>::quiet_NaN();
  const auto verdict_on = [&](double loss, double limit) {
    const at::Tensor v = judge(squares_of(all), at::tensor({1.5, loss}, at::kDouble), limit);
    return std::vector<double>(v.const_data_ptr<double>(), v.const_data_ptr<double>() + 3);
  };
  EXPECT_EQ(verdict_on(2.0, 1.5), (std::vector<double>{norm, static_cast<float>(1.5 / norm), 1.0}));
  for (const double limit : {0.0, norm, 2 * norm})
    EXPECT_EQ(verdict_on(2.0, limit), (std::vector<double>{norm, 1.0, 1.0})) << limit;
  EXPECT_EQ(verdict_on(nan, 0.0)[2], 0.0);
  all[1].values[3][5] = nan;
  EXPECT_EQ(verdict_on(2.0, 0.0)[2], 0.0);
  EXPECT_TRUE(testing::same_bits(
      verdict(norm, true, 1.5),
      at::tensor({norm, static_cast<double>(static_cast<float>(1.5 / norm)), 1.0}, at::kDouble)));
  EXPECT_EQ(verdict(norm, false, 1.5)[2].item<double>(), 0.0);
  EXPECT_THROW(judge(squares_of(gradients()), at::zeros({2}), 1.0), ShapeError);
}

}  // namespace retort::kernels
