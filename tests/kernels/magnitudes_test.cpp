#include "kernels/magnitudes.h"

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

TEST(GroupPeaks, AreTheLargestMagnitudes) {
  at::Tensor x = at::empty({900, 672});
  Random(7, "magnitudes_test").fill_normal(x, 1.0);
  x[1].zero_();
  x[2][5] = -INFINITY;
  for (const int64_t group : {1, 16, 21, 32, 672})
    EXPECT_TRUE(
        testing::same_bits(group_peaks(x, group), x.abs().unflatten(-1, {672 / group, group}).amax(-1)))
        << group;
}

TEST(GroupPeaks, AreNaNWhereAValueIs) {
  at::Tensor x = at::ones({2, 64});
  x[1][40] = NAN;
  x[1][41] = INFINITY;
  EXPECT_EQ(group_peaks(x, 32)[1][0].item<float>(), 1.0f);
  EXPECT_TRUE(std::isnan(group_peaks(x, 32)[1][1].item<float>()));
}

TEST(RowMeans, AreTheMeanMagnitudes) {
  at::Tensor x = at::empty({300, 679});  // no multiple of a vector
  Random(8, "magnitudes_test").fill_normal(x, 1.0);
  x[1].zero_();
  const at::Tensor exact = x.to(at::kDouble).abs().mean(-1, /*keepdim=*/true), means = row_means(x);
  EXPECT_EQ(means.sizes(), exact.sizes());
  EXPECT_LT((means - exact).abs().max().item<double>(), 1e-7);
  x[2][678] = NAN;
  EXPECT_TRUE(std::isnan(row_means(x)[2][0].item<float>()));
}

// 1, 2, .. 600, and numbers beside which they are lost: those of one sum, and of sums that are added in pairs.
TEST(MeanInOrder, AddsEvery256thThenHalves) {
  at::Tensor x = at::arange(1, 601, at::kFloat);
  EXPECT_EQ(mean_in_order(x), 600.0 * 601.0 / 2.0 / 600.0);
  x[3] = 1e30f, x[259] = 5.0f, x[515] = -1e30f;  // sum 3: 5 is lost
  EXPECT_EQ(mean_in_order(x) * 600.0, 600.0 * 601.0 / 2.0 - 4.0 - 260.0 - 516.0);
  x[3] = 1e30f, x[515] = 0.0f,
  x[131] = -1e30f;  // sum 131, with 388 in it, is added to sum 3: 5 and 388 are lost
  EXPECT_EQ(mean_in_order(x) * 600.0, 600.0 * 601.0 / 2.0 - 4.0 - 260.0 - 516.0 - 132.0 - 388.0);
}

TEST(Magnitudes, RefuseWhatTheyCannotRead) {
  EXPECT_THROW(group_peaks(at::empty({2, 8}, at::kMeta), 4), ShapeError);
  EXPECT_THROW(row_means(at::empty({2, 8}, at::kDouble)), ShapeError);
  EXPECT_THROW(mean_in_order(at::empty({2}, at::kMeta)), ShapeError);
}

TEST(RowMeans, AreTheSameOnAnyNumberOfThreads) {
  at::Tensor x = at::empty({2000, 512});
  Random(9, "magnitudes_test").fill_normal(x, 1.0);
  const at::Tensor many = row_means(x);
  EXPECT_TRUE(testing::same_bits(many.narrow(0, 700, 1), row_means(x.narrow(0, 700, 1))));
}

}  // namespace
}  // namespace retort::kernels
