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

void expect_the_trees(int64_t leaves, int64_t n, at::ScalarType dtype, int64_t offset = 0) {
  const at::Tensor x = unequal({leaves, n}, 1).to(dtype);
  comm::TreeSum<at::Tensor, Add> tree;
  for (int64_t leaf = 0; leaf < leaves; ++leaf) tree.push(x[leaf].to(at::kFloat));
  const at::Tensor want = tree.finish();
  const std::string what = fmt::format("{} leaves of {} {} at {}", leaves, n, c10::toString(dtype), offset);
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        Tensors all;
        for (int64_t leaf = 0; leaf < leaves; ++leaf)
          all.push_back(placed(x[leaf], device, leaf + 1 == leaves ? offset : 0));
        const at::Tensor sum = ops.tree_sum(all);
        EXPECT_EQ(sum.is_alias_of(all[0]), dtype == at::kFloat);
        return {sum};
      },
      [&](const Tensors& got) { EXPECT_TRUE(same_bits(got[0], want)) << what; });
}

TEST(CudaTreeSum, AddsInTheOrderOfTheTree) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t n : {1, 31, 32, 33, 2048, 2056, 4104})
      for (const int64_t leaves : {1, 2, 3, 4, 5, 6, 7, 8, 13, 64, 100, 127})
        if (leaves <= 8 || n <= 2048) expect_the_trees(leaves, n, dtype);
}

// One leaf that begins anywhere.
TEST(CudaTreeSum, TakesLeavesThatAreNotAligned) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) expect_the_trees(3, 264, dtype, 1);
}

// Eight slices of the parts, each in turn, and then these in turn.
at::Tensor sum_in_order(const at::Tensor& parts) {
  Tensors slices(8, at::zeros_like(parts[0]));
  for (int64_t p = 0; p < parts.size(0); ++p) slices[p % 8] = slices[p % 8] + parts[p];
  for (size_t s = 1; s < slices.size(); ++s) slices[0] = slices[0] + slices[s];
  return slices[0];
}

TEST(CudaSumParts, AddsEveryColumnInOneOrder) {
  for (const int64_t count : {1, 7, 8, 33, 128, 129, 264})
    for (const int64_t width : {1, 31, 32, 33, 100}) {
      const at::Tensor parts = unequal({count, width}, 1), exact = parts.to(at::kDouble).sum(0);
      const std::string what = fmt::format("{} parts of {}", count, width);
      everywhere(
          what,
          [&](const Ops& ops, const at::Device& device) -> Tensors {
            return {ops.sum_parts(placed(parts, device))};
          },
          [&](const Tensors& got) {
            EXPECT_TRUE(same_bits(got[0], sum_in_order(parts))) << what;
            const double largest = parts.to(at::kDouble).abs().sum(0).max().item<double>();
            EXPECT_LE(worst_error(got[0], exact),
                      2.0 * (worst_error(parts.sum(0), exact) + 0x1p-23 * largest))
                << what;
          });
    }
}

}  // namespace
}  // namespace retort::testing
