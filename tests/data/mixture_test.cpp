#include "data/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace retort::data {
namespace {

// Walks `samples` samples: every source's are numbered without a gap, and its count never strays from its
// share by more than the bound that the header states.
void expect_even(const std::vector<double>& weights, int64_t samples) {
  const Mixture mixture(weights);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> seen(weights.size());
  for (int64_t n = 0; n < samples; ++n) {
    ASSERT_EQ(mixture.counts(n), seen) << n;
    const Mixture::Place place = mixture(n);
    ASSERT_EQ(place.index, seen.at(static_cast<size_t>(place.source))++) << n;
    for (size_t s = 0; s < weights.size(); ++s)
      ASSERT_NEAR(static_cast<double>(seen[s]), static_cast<double>(n + 1) * weights[s] / total,
                  static_cast<double>(weights.size()) / 2)
          << s << " of " << n + 1;
  }
}

}  // namespace

TEST(Mixture, OneSourceIsTheWholeOrder) {
  const Mixture mixture({0.3});
  for (const int64_t sample : {int64_t{0}, int64_t{7}, int64_t{1} << 40}) {
    EXPECT_EQ(mixture(sample).source, 0);
    EXPECT_EQ(mixture(sample).index, sample);
  }
}

TEST(Mixture, EverySourceKeepsItsShareAllAlong) {
  expect_even({0.7, 0.3}, 3000);
  expect_even({1, 1, 1}, 3000);
  expect_even({5, 0.01, 2, 2, 0.5}, 3000);
  expect_even({1e-3, 1, 1e-3}, 5000);
}

TEST(Mixture, ExactSharesStayExactFarOut) {
  const Mixture mixture({3, 1});
  for (const int64_t n : {int64_t{4}, int64_t{1} << 20, int64_t{1} << 50})
    EXPECT_EQ(mixture.counts(n), (std::vector<int64_t>{n / 4 * 3, n / 4}));
  const int64_t far = (int64_t{1} << 50) + 3;
  const Mixture::Place place = mixture(far);
  EXPECT_EQ(place.index, mixture.counts(far)[static_cast<size_t>(place.source)]);
}

TEST(Mixture, ATinyShareIsNotNothing) {
  const Mixture mixture({1e-30, 1});
  EXPECT_EQ(mixture.counts(int64_t{1} << 32)[0], 1);
}

TEST(Mixture, RefusesWeightsThatAreNone) {
  EXPECT_THROW(Mixture({}), ConfigError);
  EXPECT_THROW(Mixture({1, 0}), ConfigError);
  EXPECT_THROW(Mixture({1, -2}), ConfigError);
  EXPECT_THROW(Mixture({std::numeric_limits<double>::quiet_NaN()}), ConfigError);
  EXPECT_THROW(Mixture({std::numeric_limits<double>::infinity()}), ConfigError);
  EXPECT_THROW(Mixture({1})(-1), ShapeError);
}

}  // namespace retort::data
