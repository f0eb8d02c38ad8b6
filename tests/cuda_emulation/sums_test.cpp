#include <gtest/gtest.h>

#include "comm/tree_sum.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

// Values of very unequal size: another order gives other bits.
at::Tensor unequal(at::IntArrayRef shape, uint64_t seed) {
  return (normal(shape, seed) * normal(shape, seed + 1, 3.0).exp()).to(at::kFloat);
}

struct Add {
  at::Tensor operator()(const at::Tensor& a, const at::Tensor& b) const { return a + b; }
};

TEST(CudaTreeSum, AddsInTheOrderOfTheTree) {
  for (const int64_t n : {1, 31, 2048, 2049, 4104})
    for (const int64_t leaves : {1, 2, 3, 4, 5, 6, 7, 8, 13, 64, 100, 127}) {
      if (leaves > 8 && n > 2048) continue;
      const at::Tensor x = unequal({leaves, n}, 1);
      comm::TreeSum<at::Tensor, Add> tree;
      for (int64_t leaf = 0; leaf < leaves; ++leaf) tree.push(x[leaf]);
      const at::Tensor want = tree.finish();
      const std::string what = fmt::format("{} leaves of {}", leaves, n);
      everywhere(
          what,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            const auto [sum, squares] = ops.tree_sum(placed(x, device));
            return {sum, squares};
          },
          [&](const Tensors& got) {
            EXPECT_TRUE(same_bits(got[0], want)) << what;
            EXPECT_EQ(got[1].numel(), (n + 2047) / 2048);
            const double squares = want.to(at::kDouble).square().sum().item<double>();
            EXPECT_NEAR(got[1].sum().item<double>(), squares, 1e-12 * squares) << what;
          });
    }
}

TEST(CudaSumParts, AddsEveryColumn) {
  for (const int64_t count : {1, 7, 8, 33, 264})
    for (const int64_t width : {1, 31, 32, 33, 100}) {
      const at::Tensor parts = unequal({count, width}, 1), exact = parts.to(at::kDouble).sum(0);
      const std::string what = fmt::format("{} parts of {}", count, width);
      everywhere(
          what,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            return {ops.sum_parts(placed(parts, device))};
          },
          [&](const Tensors& got) {
            const double largest = parts.to(at::kDouble).abs().sum(0).max().item<double>();
            EXPECT_LE(worst_error(got[0], exact),
                      2.0 * (worst_error(parts.sum(0), exact) + 0x1p-23 * largest))
                << what;
          });
    }
}

}  // namespace
}  // namespace retort::testing
