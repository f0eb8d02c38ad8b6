#include "kernels/thin_product.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/cpu/elements.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using retort::testing::normal;
using retort::testing::same_bits;
using retort::testing::worst_error;

constexpr int64_t kRows = cpu::kThinRows;

// The f32 product of the widened operands is the plain version; two units of the largest output are a floor,
// since it may be exact by luck.
void expect_as_good(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const std::string& what) {
  const at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
  const double plain = worst_error(at::linear(x.to(at::kFloat), w.to(at::kFloat)), exact);
  const double floor = 0x1p-22 * exact.abs().max().item<double>();
  EXPECT_LE(worst_error(y, exact), std::max(2 * plain, floor)) << what;
}

}  // namespace

TEST(ThinProduct, MatchesFp64OnOddShapes) {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int64_t rows = 1; rows <= kRows; ++rows)
      for (const int64_t depth : {1, 15, 16, 33, 64, 123, 704})
        for (const int64_t columns : {1, 3, 4, 7, 130}) {
          const at::Tensor x = normal({rows, depth}, 1).to(dtype), w = normal({columns, depth}, 2).to(dtype);
          ASSERT_TRUE(is_thin(x, w));
          const at::Tensor y = thin_product(x, w);
          ASSERT_EQ(y.sizes(), (std::vector<int64_t>{rows, columns}));
          ASSERT_EQ(y.scalar_type(), at::kFloat);
          expect_as_good(y, x, w, fmt::format("{} {}x{}x{}", c10::toString(dtype), rows, depth, columns));
        }
}

TEST(ThinProduct, EveryInstructionSetMatchesFp64) {
  const int64_t depth = 203, columns = 37;
  const at::Tensor x = normal({kRows, depth}, 3).to(at::kFloat),
                   w = normal({columns, depth}, 4).to(at::kBFloat16);
  for (const cpu::Table* table : cpu::all_cpu_tables())
    for (int64_t rows = 1; rows <= kRows; ++rows) {
      const at::Tensor y = at::empty({rows, columns});
      table->bf16.thin_product(cpu::read<float>(x), cpu::read<cpu::Bf16>(w), cpu::write<float>(y), rows,
                               depth, columns, columns);
      expect_as_good(y, x.narrow(0, 0, rows), w, table->name);
    }
}

TEST(ThinProduct, ARowsBitsDependOnNeitherItsNeighboursNorThreads) {
  const at::NoGradGuard no_grad;
  const at::Tensor x = normal({2, 4, 515}, 5).to(at::kFloat), w = normal({1001, 515}, 6).to(at::kBFloat16);
  const at::Tensor y = thin_product(x, w);
  ASSERT_EQ(y.sizes(), (std::vector<int64_t>{2, 4, 1001}));
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    for (int64_t rows = 1; rows <= kRows; ++rows)
      EXPECT_TRUE(same_bits(thin_product(x.view({kRows, 515}).narrow(0, kRows - rows, rows), w),
                            y.view({kRows, 1001}).narrow(0, kRows - rows, rows)))
          << rows << " rows, " << count << " threads";
  }
  at::set_num_threads(threads);
}

TEST(ThinProduct, ServesOnlyWhatItIsFor) {
  const at::Tensor w = at::zeros({5, 6});
  EXPECT_FALSE(is_thin(at::zeros({1, 6}), w));  // a gradient may be wanted
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(is_thin(at::zeros({6}), w));
  EXPECT_TRUE(is_thin(at::zeros({2, 4, 6}), w));
  EXPECT_FALSE(is_thin(at::zeros({kRows + 1, 6}), w));
  EXPECT_FALSE(is_thin(at::zeros({0, 6}), w));
  EXPECT_FALSE(is_thin(at::zeros({1, 5}), w));
  EXPECT_FALSE(is_thin(at::zeros({1, 6}), at::zeros({6, 5}).t()));
  EXPECT_FALSE(is_thin(at::zeros({1, 6}), w.to(at::kDouble)));
  EXPECT_THROW(thin_product(at::zeros({1, 5}), w), ShapeError);
}

}  // namespace retort::kernels
