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

}  // namespace

TEST(GradientNorm, IsTheRootOfAllSquares) {
  double squares = 0;
  for (const at::Tensor& g : gradients()) squares += g.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(gradient_norm(gradients()), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  EXPECT_EQ(gradient_norm({at::full({2}, 3.0), at::ones({7})}), 5.0);
}

TEST(GradientNorm, DoesNotOverflowAndTellsOfTheNonFinite) {
  EXPECT_NEAR(gradient_norm({at::full({4}, 3e38)}) / 6e38, 1.0, 1e-7);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gradient_norm({at::zeros({9}), at::full({1}, nan)})));
  EXPECT_TRUE(std::isinf(gradient_norm({at::full({1}, std::numeric_limits<double>::infinity())})));
}

TEST(GradientNorm, RefusesWhatItCannotRead) {
  EXPECT_THROW(gradient_norm({at::empty({3}, at::kMeta)}), ShapeError);
  EXPECT_THROW(gradient_norm({at::zeros({3}, at::kDouble)}), ShapeError);
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

TEST(GradientNorm, ClipsToTheLimitAndOnlyAboveIt) {
  std::vector<at::Tensor> clipped = gradients();
  const double norm = gradient_norm(clipped);
  clip_gradients(clipped, norm, 1.5);
  EXPECT_NEAR(gradient_norm(clipped), 1.5, 1e-6);
  for (const double limit : {0.0, norm, 2 * norm}) {
    std::vector<at::Tensor> untouched = gradients();
    clip_gradients(untouched, norm, limit);
    EXPECT_TRUE(testing::same_bits(untouched[1], gradients()[1])) << limit;
  }
}

}  // namespace retort::kernels
