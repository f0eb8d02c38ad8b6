#include "quantize/peaks.h"

#include <cmath>

#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

TEST(GroupPeaks, AreTheLargestMagnitudes) {
  at::Tensor x = at::empty({900, 672});
  Random(7, "peaks_test").fill_normal(x, 1.0);
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

}  // namespace
}  // namespace retort::quantize
