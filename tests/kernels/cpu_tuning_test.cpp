#include "kernels/cpu_tuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/cpu.h"
#include "kernels/product.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

TEST(CpuTuning, MeasuresAndNamesWhatItChose) {
  const CpuTuning tuning = tune_cpu();
  EXPECT_GT(tuning.fp32_gflops, 0.0);
  EXPECT_GT(tuning.bf16_gflops, 0.0);
  EXPECT_GE(tuning.threads, 1);
  EXPECT_THAT(tuning.summary(), ::testing::HasSubstr(tuning.fp32_library));
  EXPECT_EQ(tune_cpu().fp32_library, tuning.fp32_library);
}

// Two starts of a run on one machine must not differ in it.
TEST(CpuTuning, TheProcessorAloneSaysWhetherBf16IsFaster) {
  const CpuTuning tuning = tune_cpu();
  EXPECT_EQ(tuning.prefers_bf16, prefers_bf16(cpu_features()));
  EXPECT_FALSE(tuning.prefers_bf16 && !tuning.bf16_units);
}

// Whatever library serves, a sum of K products errs like f32: by at most K 2^-24 of the sum of magnitudes.
// bf16 inputs would err by 2^-9.
TEST(CpuTuning, LeavesProductsInF32) {
  tune_cpu();
  for (const auto& [rows, depth, columns] :
       {std::array<int64_t, 3>{64, 256, 1024}, {1024, 128, 352}, {7, 2048, 33}, {4096, 64, 64}}) {
    const at::Tensor a = normal({rows, depth}, 1).to(at::kFloat),
                     b = normal({columns, depth}, 2).to(at::kFloat),
                     g = normal({rows, columns}, 3).to(at::kFloat);
    const auto check_product = [](const at::Tensor& x, const at::Tensor& y) {
      const at::Tensor dx = x.to(at::kDouble), dy = y.to(at::kDouble);
      const at::Tensor bound = at::mm(dx.abs(), dy.abs()) * (static_cast<double>(x.size(1)) * 0x1p-24);
      EXPECT_TRUE(((at::mm(x, y).to(at::kDouble) - at::mm(dx, dy)).abs() <= bound).all().item<bool>());
    };
    check_product(a, b.t());
    check_product(g, b);
    check_product(g.t(), a);
  }
}

}  // namespace
}  // namespace retort::kernels
