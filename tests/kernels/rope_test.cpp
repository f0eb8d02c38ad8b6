#include "kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/reference.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

struct Counts {
  int unchanged = 0, divided = 0, blended = 0;
};

Counts count(int64_t head_dim, double factor) {
  const at::Tensor plain = rope_frequencies(head_dim, 500000.0, {});
  const at::Tensor scaled = rope_frequencies(head_dim, 500000.0, {"llama3", factor, 1.0, 4.0, 8192});
  Counts out;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const double ratio = scaled[i].item<double>() / plain[i].item<double>();
    if (ratio == 1.0)
      ++out.unchanged;
    else if (std::abs(ratio * factor - 1.0) < 1e-12)
      ++out.divided;
    else
      ++out.blended;
  }
  return out;
}

// Counts checked against the published implementation: reference/models.md, section 4.
TEST(RopeFrequencies, FollowLlama3) {
  const Counts large = count(128, 8.0), small = count(64, 32.0);
  EXPECT_EQ(large.unchanged, 29);
  EXPECT_EQ(large.divided, 29);
  EXPECT_EQ(large.blended, 6);
  EXPECT_EQ(small.unchanged, 15);
  EXPECT_EQ(small.divided, 14);
  EXPECT_EQ(small.blended, 3);
}

TEST(RopeFrequencies, ScaleLinearly) {
  const at::Tensor plain = rope_frequencies(16, 10000.0, {}),
                   scaled = rope_frequencies(16, 10000.0, {"linear", 4.0});
  EXPECT_TRUE(same_bits(plain / 4.0, scaled));
  EXPECT_EQ(plain[0].item<double>(), 1.0);
  EXPECT_DOUBLE_EQ(plain[4].item<double>(), 0.01);
}

TEST(RopeFrequencies, RefuseNonsense) {
  EXPECT_THROW(rope_frequencies(7, 10000.0, {}), ConfigError);
  EXPECT_THROW(rope_frequencies(8, 10000.0, {"yarn"}), ConfigError);
}

// Angles in f64: at position 131071 an f32 angle would already be off by 4e-3.
TEST(RopeTables, AreExactFarOut) {
  const at::Tensor frequencies = rope_frequencies(8, 10000.0, {});
  const RopeTables tables = rope_tables(frequencies, 131072);
  for (int64_t i = 0; i < 4; ++i) {
    const double angle = 131071.0 * frequencies[i].item<double>();
    EXPECT_NEAR(tables.cos_PK[131071][i].item<double>(), std::cos(angle), 0x1p-24);
    EXPECT_NEAR(tables.sin_PK[131071][i].item<double>(), std::sin(angle), 0x1p-24);
  }
}

// Queries and keys, one after another.
Operation turned(const RopeTables& tables, const at::Tensor& positions) {
  return [=](const Tensors& x) {
    const auto [q, k] = rope(x[0], x[1], tables, positions);
    return at::cat({q, k}, 2);
  };
}
Operation plainly_turned(const RopeTables& tables, const at::Tensor& positions) {
  return [=](const Tensors& x) {
    return at::cat({reference::rope(x[0], tables, positions), reference::rope(x[1], tables, positions)}, 2);
  };
}

TEST(Rope, MatchesFp64OnOddShapes) {
  for (const auto& [b, t, h, g, k] : {std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t>{1, 1, 1, 1, 2},
                                      {2, 5, 3, 1, 6},
                                      {3, 123, 2, 2, 32},
                                      {1, 257, 5, 1, 64},
                                      {2, 9, 4, 2, 130}}) {
    const RopeTables tables = rope_tables(rope_frequencies(k, 10000.0, {}), 300);
    const at::Tensor positions = random_labels(b * t, 300, 5).view({b, t});
    expect_as_good(fmt::format("rope {} {} {} {} {}", b, t, h, g, k), turned(tables, positions),
                   plainly_turned(tables, positions), {normal({b, t, h, k}, 1), normal({b, t, g, k}, 2)});
  }
}

// As columns of one product are.
TEST(Rope, TakesTokensThatAreApart) {
  const RopeTables tables = rope_tables(rope_frequencies(8, 10000.0, {}), 40);
  const at::Tensor positions = random_labels(2 * 7, 40, 5).view({2, 7});
  const auto columns = [](const at::Tensor& x_BTC, int64_t first, int64_t heads) {
    return x_BTC.narrow(2, 8 * first, 8 * heads).unflatten(2, {heads, 8});
  };
  const auto both = [&](const Operation& f) {
    return [&columns, f](const Tensors& x) { return f({columns(x[0], 1, 3), columns(x[0], 4, 2)}); };
  };
  expect_as_good("columns", both(turned(tables, positions)), both(plainly_turned(tables, positions)),
                 {normal({2, 7, 48}, 1)});
}

TEST(Rope, MatchesFp64InBf16) {
  const RopeTables tables = rope_tables(rope_frequencies(24, 10000.0, {}), 40);
  const at::Tensor positions = random_labels(2 * 7, 40, 5).view({2, 7});
  expect_as_good("bf16", turned(tables, positions), plainly_turned(tables, positions),
                 {normal({2, 7, 3, 24}, 1), normal({2, 7, 1, 24}, 2)}, at::kBFloat16);
}

// The pairs are (x_i, x_{i + K/2}): position 1 turns the unit vector of the first pair by 1 rad.
TEST(Rope, RotatesHalvesNotNeighbours) {
  const RopeTables tables = rope_tables(rope_frequencies(4, 10000.0, {}), 2);
  const at::Tensor x = at::tensor({1.f, 0.f, 0.f, 0.f}).view({1, 1, 1, 4});
  const at::Tensor y = rope(x, x, tables, at::ones({1, 1}, at::kLong)).second.view({4});
  EXPECT_FLOAT_EQ(y[0].item<float>(), std::cos(1.f));
  EXPECT_FLOAT_EQ(y[2].item<float>(), std::sin(1.f));
  EXPECT_EQ(y[1].item<float>(), 0.f);
}

TEST(Rope, RefusesPositionsBeyondTheTable) {
  const RopeTables tables = rope_tables(rope_frequencies(4, 10000.0, {}), 2);
  const at::Tensor x = at::zeros({1, 1, 1, 4}), wide = at::zeros({1, 1, 1, 6}),
                   longer = at::zeros({1, 2, 1, 4});
  EXPECT_THROW(rope(x, x, tables, at::full({1, 1}, 2, at::kLong)), ShapeError);
  EXPECT_THROW(rope(x, x, tables, at::full({1, 1}, -1, at::kLong)), ShapeError);
  EXPECT_THROW(rope(wide, wide, tables, at::zeros({1, 1}, at::kLong)), ShapeError);
  EXPECT_THROW(rope(x, wide, tables, at::zeros({1, 1}, at::kLong)), ShapeError);
  EXPECT_THROW(rope(x, longer, tables, at::zeros({1, 1}, at::kLong)), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
