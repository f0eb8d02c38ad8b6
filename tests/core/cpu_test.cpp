#include "core/cpu.h"

#include <gtest/gtest.h>

namespace retort {

TEST(Cpu, AgreesWithTheCompilersOwnDetection) {
  const CpuFeatures features = cpu_features();
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.fma, __builtin_cpu_supports("fma") != 0);
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  EXPECT_EQ(features.avx512, avx512);
  EXPECT_FALSE(features.model.empty());
}

}  // namespace retort
