#include "kernels/product_sum.h"

#include <gtest/gtest.h>

#include <functional>

#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

constexpr int64_t kRows = 16;

// Chunks of rows, bf16, and what they add up to in fp64.
struct Walk {
  at::Tensor a_NV, b_ND;
  Walk(int64_t columns, int64_t width, int64_t chunks)
      : a_NV(normal({chunks * kRows, columns}, 1, 0.01).to(at::kBFloat16)),
        b_ND(normal({chunks * kRows, width}, 2).to(at::kBFloat16)) {}

  at::Tensor exact() const { return at::mm(a_NV.to(at::kDouble).t(), b_ND.to(at::kDouble)); }
  // The largest sum of terms' magnitudes: each addition of f32 errs by 2^-24 of it at most.
  double terms() const {
    return at::mm(a_NV.to(at::kDouble).abs().t(), b_ND.to(at::kDouble).abs()).max().item<double>();
  }
  using Add = std::function<void(at::Tensor&, const at::Tensor&, const at::Tensor&)>;
  at::Tensor sum(const Add& add, at::Tensor sum_VD = {}) const {
    for (int64_t row = 0; row < a_NV.size(0); row += kRows)
      add(sum_VD, a_NV.narrow(0, row, kRows), b_ND.narrow(0, row, kRows));
    return sum_VD;
  }
  double error(const Add& add, const at::Tensor& start = {}) const {
    return worst_error(sum(add, start), exact());
  }
};

void rounded(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  const at::Tensor product_VD = at::mm(a_CV.t(), b_CD);
  sum_VD = sum_VD.defined() ? sum_VD.add_(product_VD) : product_VD.to(at::kFloat);
}

// A chunk that is rounded to bf16 errs by up to 2^-9 of itself; sums in f32 by 2^-24 of their terms an addition.
TEST(ProductSum, IsF32OverChunksOfBf16) {
  struct Size {
    int64_t columns, width, chunks;
  };
  for (const auto& [columns, width, chunks] : {Size{1, 1, 40}, {37, 12, 40}, {300, 64, 40}, {17000, 3, 2}}) {
    SCOPED_TRACE(columns);
    const Walk walk(columns, width, chunks);
    const double bound = chunks * kRows * 0x1p-24 * walk.terms(), of_rounded = walk.error(rounded);
    const double ours = walk.error(add_product);
    EXPECT_LE(ours, bound);
    EXPECT_GE(of_rounded, 16 * ours) << "the rounding that is left out must show";
    const auto start = [&] { return at::zeros({columns, width}); };
    EXPECT_LE(walk.error(products::widened, start()), bound);
    bool there = true;
    const auto by_mkl = [&](at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
      there = there && products::into_f32_by_mkl(sum, a, b);
    };
    const double of_mkl = walk.error(by_mkl, start());
    EXPECT_TRUE(!there || of_mkl <= bound) << of_mkl;
  }
}

TEST(ProductSum, AddsToWhatIsThereAndTakesViews) {
  const at::Tensor a = normal({8, 24}, 1).to(at::kBFloat16), b = normal({8, 12}, 2).to(at::kBFloat16);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor left = a.narrow(1, 3, 9).to(dtype), right = b.t().contiguous().t().to(dtype);
    at::Tensor sum = at::ones({9, 12}), mkl = sum.clone(), from_nothing;
    add_product(sum, left, right);
    add_product(from_nothing, left, right);
    const at::Tensor exact = at::mm(left.to(at::kDouble).t(), right.to(at::kDouble));
    EXPECT_LE(worst_error(from_nothing, exact), 8 * 0x1p-24 * 8 * 9.0);
    EXPECT_LE(worst_error(sum, exact + 1.0), 9 * 0x1p-24 * 8 * 9.0);
    if (dtype == at::kBFloat16 && products::into_f32_by_mkl(mkl, left, right)) {
      EXPECT_LE(worst_error(mkl, exact + 1.0), 9 * 0x1p-24 * 8 * 9.0);
    }
  }
  at::Tensor nothing;
  add_product(nothing, a.narrow(0, 0, 0), b.narrow(0, 0, 0));
  EXPECT_EQ(nothing.abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(nothing.sizes(), (std::vector<int64_t>{24, 12}));
}

// Panels are the same and products of one thread each, however many threads there are.
TEST(ProductSum, OfBf16DoesNotFollowTheThreads) {
  const Walk walk(40000, 3, 2);
  const auto on = [&](int threads) {
    const Threads limit(threads);
    return walk.sum(products::widened, at::zeros({40000, 3}));
  };
  EXPECT_TRUE(same_bits(on(1), on(2)));
  EXPECT_TRUE(same_bits(on(1), on(3)));
}

}  // namespace
}  // namespace retort::kernels
