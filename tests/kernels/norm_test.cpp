#include "kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>

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
at::Tensor ours_layer(const Tensors& t) { return layer_norm(t[0], t[1], t[2], kEps); }
at::Tensor plain_layer(const Tensors& t) { return reference::layer_norm(t[0], t[1], t[2], kEps); }

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

// One node for a sum and its norm: the bits of the two, values and gradients.
TEST(AddRmsNorm, IsTheSumAndItsNorm) {
  const Operation one = [](const Tensors& t) {
    const AddedNorm added = add_rms_norm(t[0], t[1], t[2], kEps, true);
    return at::stack({added.sum_ND, added.y_ND});
  };
  const Operation two = [](const Tensors& t) {
    const at::Tensor sum = t[0] + t[1];
    return at::stack({sum, rms_norm(sum, t[2], kEps, true)});
  };
  const Tensors inputs{normal({3, 41, 24}, 1), normal({3, 41, 24}, 2), normal({24}, 3)};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Outcome got = run(one, inputs, dtype), want = run(two, inputs, dtype);
    EXPECT_TRUE(same_bits(got.value, want.value));
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_TRUE(same_bits(got.gradients[i], want.gradients[i])) << toString(dtype) << " input " << i;
  }
  expect_thread_independent(one, inputs);

  // A model's last norm alone is read of the two; or the sum alone.
  const Operation norm = [](const Tensors& t) { return add_rms_norm(t[0], t[1], t[2], kEps).y_ND; };
  const Outcome got = run(norm, inputs, at::kFloat),
                want = run([](const Tensors&t) { return rms_norm(t[0] + t[1], t[2], kEps); }, inputs,
                           at::kFloat);
  EXPECT_TRUE(same_bits(got.value, want.value));
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(same_bits(got.gradients[i], want.gradients[i])) << i;
  Tensors leaves;
  for (const at::Tensor& x : inputs) leaves.push_back(x.to(at::kFloat).requires_grad_());
  add_rms_norm(leaves[0], leaves[1], leaves[2], kEps).sum_ND.sum().backward();
  for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(leaves[i].grad().eq(1).all().item<bool>());

  EXPECT_THROW(add_rms_norm(inputs[0], inputs[1].narrow(0, 0, 1), inputs[2], kEps), ShapeError);
}

TEST(LayerNorm, MatchesFp64OnOddShapes) {
  for (int64_t n : {1, 5, 123, 1025})
    for (int64_t d : {1, 7, 64, 123, 256})
      expect_as_good(fmt::format("layer_norm {}x{}", n, d), ours_layer, plain_layer,
                     {normal({n, d}, 1), normal({d}, 2), normal({d}, 3)});
}

TEST(LayerNorm, MatchesFp64InBf16) {
  for (int64_t d : {7, 64, 123})
    expect_as_good(fmt::format("bf16 {}", d), ours_layer, plain_layer,
                   {normal({133, d}, 1), normal({d}, 2), normal({d}, 3)}, at::kBFloat16);
}

TEST(LayerNorm, TakesAnyLeadingDimensionsAndStrides) {
  const Tensors inputs{normal({3, 5, 2, 16}, 1), normal({16}, 2), normal({16}, 3)};
  expect_as_good("leading", ours_layer, plain_layer, inputs);
  const auto transposed = [](const Operation& op) {
    return Operation([op](const Tensors& t) { return op({t[0].transpose(0, 2), t[1], t[2]}); });
  };
  expect_as_good("strided", transposed(ours_layer), transposed(plain_layer), inputs);
}

// Against sums of x^2: these would leave nothing of a variance of 1 beside a mean of 4096.
TEST(LayerNorm, KeepsTheVarianceOfRowsFarFromZero) {
  const at::Tensor x = (normal({65, 123}, 1) * 64).round() / 64 + 4096;  // exact in f32
  expect_as_good("far", ours_layer, plain_layer, {x, normal({123}, 2), normal({123}, 3)});
}

// A constant row gives the bias, however large; a NaN is not hidden.
TEST(LayerNorm, SurvivesExtremeRows) {
  const at::Tensor w = normal({77}, 1).to(at::kFloat), b = normal({77}, 2).to(at::kFloat);
  for (const double constant : {0.0, 0.1, -3e4, 1e12, 1e18})
    EXPECT_TRUE(same_bits(layer_norm(at::full({1, 77}, constant), w, b, kEps)[0], b)) << constant;
  EXPECT_TRUE(layer_norm(at::full({1, 77}, NAN), w, b, kEps).isnan().all().item<bool>());
  EXPECT_EQ(layer_norm(at::zeros({0, 77}), w, b, kEps).numel(), 0);
  const Outcome empty = run(ours_layer, {at::zeros({0, 77}), w, b}, at::kFloat);
  EXPECT_TRUE(same_bits(empty.gradients[1], at::zeros({77})));
}

TEST(LayerNorm, GivesTheSameBitsForAnyThreadCount) {
  for (int64_t d : {64, 123})
    expect_thread_independent(ours_layer, {normal({1025, d}, 1), normal({d}, 2), normal({d}, 3)});
}

TEST(LayerNorm, NamesAWrongBias) {
  EXPECT_THROW(layer_norm(at::zeros({2, 8}), at::zeros({8}), at::zeros({9}), kEps), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
