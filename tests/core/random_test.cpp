#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/error.h"

namespace retort {

TEST(Random, PhiloxKnownAnswers) {  // from the Random123 distribution's known-answer file
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t f = 0xffffffff;
  EXPECT_EQ(philox4x32({f, f, f, f}, {f, f}), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Random, StreamsDependOnEveryPartOfTheirName) {
  const auto first = [](const Random& r) { return r.bits(0); };
  const std::set<uint64_t> values = {first(Random(1, "a")),       first(Random(2, "a")),
                                     first(Random(1, "b")),       first(Random(1, "a", 1)),
                                     first(Random(1, "a", 0, 1)), first(Random(1, "a", 1, 1)),
                                     Random(1, "a").bits(1)};
  EXPECT_EQ(values.size(), 7u);
  EXPECT_EQ(first(Random(1, "a", 3, 4)), first(Random(1, "a", 3, 4)));
}

TEST(Random, NormalHasItsMoments) {
  const int64_t n = 200000;
  at::Tensor x = at::empty({n});
  Random(7, "moments").fill_normal(x, 2.0);
  const double mean = x.mean().item<double>(), std = x.std().item<double>();
  EXPECT_LT(std::abs(mean), 5 * 2.0 / std::sqrt(n));           // five standard errors of the mean
  EXPECT_LT(std::abs(std - 2.0), 5 * 2.0 / std::sqrt(2 * n));  // and of the deviation
  EXPECT_LT(std::abs(at::pow(x / 2.0, 4).mean().item<double>() - 3.0), 5 * std::sqrt(96.0 / n));
}

TEST(Random, UniformStaysInRangeAndBelowBound) {
  const Random r(3, "range");
  double low = 1, high = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = r.uniform(i);
    low = std::min(low, u);
    high = std::max(high, u);
    EXPECT_LT(r.below(i, 7), 7u);
  }
  EXPECT_GE(low, 0.0);
  EXPECT_LT(high, 1.0);
  EXPECT_LT(low, 0.01);
  EXPECT_GT(high, 0.99);
}

TEST(Random, FillRefusesOtherThanDenseFloat) {
  at::Tensor doubles = at::empty({3}, at::kDouble);
  EXPECT_THROW(Random(1, "x").fill_normal(doubles, 1.0), ShapeError);
}

TEST(Permutation, IsABijectionForEverySize) {
  for (uint64_t size : {1, 2, 3, 7, 64, 100, 1023, 4097}) {
    const Permutation p(size, 5, 0);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) seen.insert(p(i));
    EXPECT_EQ(seen.size(), size);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, DiffersByEpochAndSeedAndMovesThings) {
  const Permutation a(1000, 5, 0), b(1000, 5, 1), c(1000, 6, 0);
  int same_ab = 0, same_ac = 0, fixed = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_ab += a(i) == b(i);
    same_ac += a(i) == c(i);
    fixed += a(i) == i;
  }
  // Each count is about Poisson(1) for random permutations; P(> 10) < 1e-7.
  EXPECT_LE(same_ab, 10);
  EXPECT_LE(same_ac, 10);
  EXPECT_LE(fixed, 10);
}

}  // namespace retort
