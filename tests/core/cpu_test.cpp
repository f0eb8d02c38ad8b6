#include "core/cpu.h"

#include "core/each_target.h"

#include <gtest/gtest.h>

namespace retort {

TEST(Cpu, AgreesWithTheCompilersOwnDetection) {
  const CpuFeatures features = cpu_features();
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.fma, __builtin_cpu_supports("fma") != 0);
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  EXPECT_EQ(features.avx512, avx512);
  EXPECT_EQ(features.intel, __builtin_cpu_is("intel") != 0);
  EXPECT_FALSE(features.model.empty());
}

namespace {

RETORT_EACH_TARGET float sum_of(const float* x, int count) {
  float sum = 0;
  for (int i = 0; i < count; ++i) sum += x[i];
  return sum;
}

}  // namespace

TEST(EachTarget, ComputesOnThisMachine) {
  const float x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_EQ(sum_of(x, 9), 45.0f);
}

}  // namespace retort
