#include "core/cpu.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/each_target.h"
#include "core/error.h"

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

// Names of $RETORT_CPU.
TEST(Cpu, IsTakenForAnother) {
  const CpuFeatures here = cpu_features();
  const auto as = [](const char* name) {
    ::setenv("RETORT_CPU", name, 1);
    return cpu_features();
  };
  const CpuFeatures avx2 = as("avx2"), avx512 = as("avx512"), amx = as("amx");
  EXPECT_FALSE(avx2.avx512 || avx2.avx512_bf16 || avx2.avx512_fp16 || avx2.amx_bf16);
  EXPECT_EQ(avx2.avx2, here.avx2);
  EXPECT_FALSE(avx512.amx_bf16);
  EXPECT_EQ(avx512.avx512_bf16, here.avx512_bf16);
  EXPECT_TRUE(amx.amx_bf16);
  EXPECT_EQ(amx.avx512, here.avx512);
  EXPECT_THROW(as("sse2"), ConfigError);
  EXPECT_EQ(as("").amx_bf16, here.amx_bf16);
  ::unsetenv("RETORT_CPU");
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
