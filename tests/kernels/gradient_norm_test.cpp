#include "kernels/gradient_norm.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

std::vector<at::Tensor> gradients() {
  std::vector<at::Tensor> out{at::empty({3}), at::empty({501, 203}), at::empty({8, 2})};
  for (size_t i = 0; i < out.size(); ++i) Random(3, "gradient", i).fill_normal(out[i], 2.0);
  return out;
}

// In blocks of so many rows; 0: one block each.
std::vector<BlockedGradient> in_blocks(const std::vector<at::Tensor>& gradients, int64_t rows = 0) {
  std::vector<BlockedGradient> out;
  for (const at::Tensor& g : gradients) out.push_back({g, {0, g.size(0), rows > 0 ? rows : g.size(0)}});
  return out;
}

double norm_of(const std::vector<at::Tensor>& gradients, int64_t rows = 0) {
  return gradient_norm(in_blocks(gradients, rows));
}

}  // namespace

// The sum of all block sums in order: not of tensors' sums.
TEST(GradientNorm, AddsBlocksInDeclarationOrder) {
  double total = 0;
  for (const at::Tensor& g : gradients())
    for (int64_t row = 0; row < g.size(0); row += 7) {
      const double block = norm_of({g.slice(0, row, std::min(row + 7, g.size(0))).contiguous()});
      total += block * block;
    }
  EXPECT_NEAR(norm_of(gradients(), 7), std::sqrt(total), 1e-14 * std::sqrt(total));
  EXPECT_EQ(norm_of(gradients(), 7), norm_of(gradients(), 7));
}

TEST(GradientNorm, IsTheRootOfAllSquares) {
  double squares = 0;
  for (const at::Tensor& g : gradients()) squares += g.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(norm_of(gradients()), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  EXPECT_EQ(norm_of({at::full({2}, 3.0), at::ones({7})}), 5.0);
}

TEST(GradientNorm, DoesNotOverflowAndTellsOfTheNonFinite) {
  EXPECT_NEAR(norm_of({at::full({4}, 3e38)}) / 6e38, 1.0, 1e-7);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(norm_of({at::zeros({9}), at::full({1}, nan)})));
  EXPECT_TRUE(std::isinf(norm_of({at::full({1}, std::numeric_limits<double>::infinity())})));
}

TEST(GradientNorm, RefusesWhatItCannotRead) {
  EXPECT_THROW(norm_of({at::empty({3}, at::kMeta)}), ShapeError);
  EXPECT_THROW(norm_of({at::zeros({3}, at::kDouble)}), ShapeError);
}

TEST(GradientNorm, TakesNoPartOfTheThreadCount) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const double one = norm_of(gradients());
  at::set_num_threads(3);
  const double three = norm_of(gradients());
  at::set_num_threads(before);
  EXPECT_EQ(one, three);
}

TEST(GradientNorm, ClipsToTheLimitAndOnlyAboveIt) {
  std::vector<at::Tensor> clipped = gradients();
  const double norm = norm_of(clipped);
  clip_gradients(clipped, norm, 1.5);
  EXPECT_NEAR(norm_of(clipped), 1.5, 1e-6);
  for (const double limit : {0.0, norm, 2 * norm}) {
    std::vector<at::Tensor> untouched = gradients();
    clip_gradients(untouched, norm, limit);
    EXPECT_TRUE(testing::same_bits(untouched[1], gradients()[1])) << limit;
  }
}

}  // namespace retort::kernels
