// The pieces that the CPU loops are made of. This file alone is compiled for AVX2.
#include "kernels/cpu/simd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cpu/product.h"
#include "kernels/cpu/square.h"

namespace retort::kernels::cpu::avx2 {
namespace {

#define RETORT_NEEDS_AVX2() \
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) GTEST_SKIP() << "no AVX2 with FMA"

TEST(Simd, ExponentialIsRightToTwoUnits) {
  RETORT_NEEDS_AVX2();
  for (float x = -87.2f; x < 88.7f; x += 0.0137f) {
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(exp(splat(x))[0] / exact, 1.0, 2 * 0x1p-23) << x;
  }
  EXPECT_EQ(exp(splat(0.0f))[0], 1.0f);
  EXPECT_EQ(exp(splat(-kInfinity))[0], 0.0f);
  EXPECT_EQ(exp(splat(100.0f))[0], kInfinity);
  EXPECT_TRUE(std::isnan(exp(splat(NAN))[0]));
}

// Relative to the result, so that a ratio near 1 keeps its digits.
TEST(Simd, LogarithmIsRightToTwoUnits) {
  RETORT_NEEDS_AVX2();
  const auto check = [](float x) {
    const double exact = std::log(static_cast<double>(x));
    ASSERT_NEAR(log(splat(x))[0] / exact, 1.0, 2 * 0x1p-23) << x;
  };
  for (double x = 1.2e-38; x < 3e38; x *= 1.0173) check(static_cast<float>(x));
  for (int step = -2000; step <= 2000; ++step)
    if (step != 0) check(1.0f + static_cast<float>(step) * 0x1p-23f * 97);
  EXPECT_EQ(log(splat(1.0f))[0], 0.0f);
}

TEST(Simd, RoundsToBf16LikeTheStandard) {
  RETORT_NEEDS_AVX2();
  // Halfway cases go to even; a NaN stays one; infinity stays.
  const float in[kLanes] = {1.0f, 1.00390625f, 1.01171875f,   -1.00390625f,
                            NAN,  kInfinity,   3.3895314e38f, 1e-40f};
  const uint16_t expected[kLanes] = {0x3f80, 0x3f80, 0x3f82, 0xbf80, 0, 0x7f80, 0x7f7f, 0x0001};
  Bf16 out[kLanes];
  store(out, load(in));
  for (int i = 0; i < kLanes; ++i) {
    if (i == 4)
      EXPECT_TRUE(std::isnan(to_float(out[i])));
    else
      EXPECT_EQ(out[i].bits, expected[i]) << i;
  }
}

TEST(Simd, SweepsEveryElementOnce) {
  RETORT_NEEDS_AVX2();
  for (int64_t n = 0; n < 100; ++n) {
    std::vector<float> x(static_cast<size_t>(n), 1.0f), y(static_cast<size_t>(n + 1), -1.0f);
    Vec total[4] = {};
    sweep(n, [&](int64_t i, int k, auto part) {
      total[k] += part.get(x.data() + i);
      part.put(y.data() + i, part.get(x.data() + i, 7.0f));
    });
    EXPECT_EQ(sum(total), static_cast<float>(n));
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y[static_cast<size_t>(i)], 1.0f);
    EXPECT_EQ(y.back(), -1.0f);
  }
}

TEST(Product, MultipliesEveryShape) {
  RETORT_NEEDS_AVX2();
  for (const bool transposed : {false, true})
    for (int64_t m : {1, 5, 6, 7, 13})
      for (int64_t n : {8, 16, 24, 40})
        for (int64_t depth : {1, 3, 17}) {
          std::vector<float> a(static_cast<size_t>(m * depth)), b(static_cast<size_t>(depth * n));
          std::vector<float> c(static_cast<size_t>(m * n), 2.0f);
          for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 7) - 3.0f;
          for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 5) - 2.0f;
          const Strided strided = transposed ? Strided{a.data(), 1, m} : Strided{a.data(), depth, 1};
          multiply(m, n, depth, strided, b.data(), n, c.data(), n, true);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              float expected = 2.0f;  // small integers: exact in any order
              for (int64_t p = 0; p < depth; ++p)
                expected += a[static_cast<size_t>(i * strided.row + p * strided.column)] *
                            b[static_cast<size_t>(p * n + j)];
              ASSERT_EQ(c[static_cast<size_t>(i * n + j)], expected) << m << " " << n << " " << depth;
            }
        }
}

TEST(Simd, TransposesASquare) {
  Vec rows[kLanes];
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) rows[i][j] = static_cast<float>(100 * i + j);
  transpose_square(rows);
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) EXPECT_EQ(rows[i][j], static_cast<float>(100 * j + i)) << i << " " << j;
}

}  // namespace
}  // namespace retort::kernels::cpu::avx2
