#include "kernels/norm.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/reference.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

constexpr double kEps = 1e-5;

Operation ours_rms(bool unit_offset) {
  return [=](const Tensors& t) { return rms_norm(t[0], t[1], kEps, unit_offset); };
}
Operation plain_rms(bool unit_offset) {
  return [=](const Tensors& t) { return reference::rms_norm(t[0], t[1], kEps, unit_offset); };
}

TEST(RmsNorm, MatchesFp64OnOddShapes) {
  for (int64_t n : {1, 5, 123, 1025})
    for (int64_t d : {7, 64, 123, 256})
      for (bool unit_offset : {false, true})
        expect_as_good(fmt::format("rms_norm {}x{} unit {}", n, d, unit_offset), ours_rms(unit_offset),
                       plain_rms(unit_offset), {normal({n, d}, 1), normal({d}, 2)});
}

TEST(RmsNorm, MatchesFp64InBf16) {
  for (int64_t d : {7, 64, 123})
    expect_as_good(fmt::format("bf16 {}", d), ours_rms(false), plain_rms(false),
                   {normal({33, d}, 1), normal({d}, 2)}, at::kBFloat16);
}

TEST(RmsNorm, TakesAnyLeadingDimensionsAndStrides) {
  const at::Tensor x = normal({3, 5, 2, 16}, 1), w = normal({16}, 2);
  expect_as_good("leading", ours_rms(false), plain_rms(false), {x, w});
  const auto transposed = [](const Operation& op) {
    return Operation([op](const Tensors& t) { return op({t[0].transpose(0, 2), t[1]}); });
  };
  expect_as_good("strided", transposed(ours_rms(false)), transposed(plain_rms(false)), {x, w});
}

// Statistics in f32 keep a bf16 row of large numbers finite, and a zero row gives zeros, not NaN.
TEST(RmsNorm, SurvivesExtremeRows) {
  const at::Tensor w = at::ones({8});
  EXPECT_TRUE(same_bits(rms_norm(at::zeros({2, 8}), w, kEps), at::zeros({2, 8})));
  const at::Tensor large = rms_norm(at::full({1, 8}, 1e18), w, kEps);
  EXPECT_NEAR(large.max().item<double>(), 1.0, 1e-6);
  EXPECT_EQ(rms_norm(at::zeros({0, 8}), w, kEps).numel(), 0);
}

TEST(RmsNorm, GivesTheSameBitsForAnyThreadCount) {
  expect_thread_independent(ours_rms(false), {normal({1025, 123}, 1), normal({123}, 2)});
}

TEST(RmsNorm, NamesAWrongWeight) {
  EXPECT_THROW(rms_norm(at::zeros({2, 8}), at::zeros({7}), kEps), ShapeError);
}

TEST(LayerNorm, MatchesFp64OnOddShapes) {
  for (int64_t n : {1, 5, 123, 1025})
    for (int64_t d : {7, 64, 123})
      expect_as_good(
          fmt::format("layer_norm {}x{}", n, d),
          [](const Tensors& t) { return layer_norm(t[0], t[1], t[2], kEps); },
          [](const Tensors& t) { return reference::layer_norm(t[0], t[1], t[2], kEps); },
          {normal({n, d}, 1), normal({d}, 2), normal({d}, 3)});
}

TEST(LayerNorm, NamesAWrongBias) {
  EXPECT_THROW(layer_norm(at::zeros({2, 8}), at::zeros({8}), at::zeros({9}), kEps), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
