#include "kernels/learned_rounding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

at::Tensor normal(at::IntArrayRef shape, double std, const char* name) {
  at::Tensor x = at::empty(shape);
  Random(6, name).fill_normal(x, std);
  return x;
}

}  // namespace

// The rule of the header, element by element in f64; rows of a length that no vector divides.
TEST(LearnedRounding, GradientsFollowTheRule) {
  const Rounding rounding{RoundRule::kNearestEven, -4, 3};
  const at::Tensor x = normal({5, 1003}, 0.03, "x"), g = normal({5, 1003}, 1.0, "g");
  const at::Tensor scale = at::full({5, 1}, 0.01);
  const at::Tensor code = round_codes(x, {scale, {}, {}, {}}, rounding).to(at::kDouble);
  const at::Tensor inside = x.ge(-4 * scale).logical_and(x.le(3 * scale)).to(at::kDouble);
  ASSERT_LT(inside.mean().item<double>(), 0.9) << "something must be clipped";
  for (const bool follows : {true, false}) {
    const at::Tensor out = at::empty_like(x);
    const at::Tensor sums = round_backward(x, scale, g, {rounding, -4, 3, follows}, out);
    const at::Tensor s = scale.to(at::kDouble);
    const at::Tensor step = code * s - (follows ? inside * x : at::zeros_like(inside));
    EXPECT_TRUE(at::equal(out, (g * inside).to(at::kFloat)));
    EXPECT_LT(testing::relative_error(sums, (g.to(at::kDouble) * step).sum(1, true)), 1e-5) << follows;
    const at::Tensor in_place = g.clone();
    EXPECT_TRUE(
        testing::same_bits(round_backward(x, scale, in_place, {rounding, -4, 3, follows}, in_place), sums));
    EXPECT_TRUE(testing::same_bits(in_place, out));
  }
}

TEST(LearnedScales, AreF16OfTheExponential) {
  at::Tensor theta = at::linspace(-11.0, 12.0, 20001, at::kFloat);
  const at::Tensor exact = theta.to(at::kDouble).exp().clamp(kLeastLearned, kMostLearned);
  EXPECT_TRUE(testing::same_bits(learned_scales(theta), exact.to(at::kFloat).to(at::kHalf).to(at::kFloat)));
  EXPECT_EQ(learned_scales(at::tensor({-INFINITY}))[0].item<float>(), 0x1p-14f);
  EXPECT_EQ(learned_scales(at::tensor({INFINITY}))[0].item<float>(), 65504.0f);
  EXPECT_TRUE(std::isnan(learned_scales(at::tensor({NAN}))[0].item<float>()));
  EXPECT_THROW(learned_scales(theta.to(at::kDouble)), ShapeError);
  EXPECT_THROW(learned_scales(at::empty({3}, at::kMeta)), ShapeError);
}

TEST(LearnedRounding, RefusesWhatItCannotRead) {
  const LearnedRounding rule{{RoundRule::kNearestEven, -4, 3}, -4, 3, true};
  const at::Tensor x = at::zeros({3, 8}), scale = at::ones({3, 1});
  EXPECT_THROW(round_backward(x, at::ones({3}), x, rule, at::empty({3, 8})), ShapeError);
  EXPECT_THROW(round_backward(x, scale, at::zeros({8, 3}), rule, at::empty({3, 8})), ShapeError);
  EXPECT_THROW(round_backward(x, scale, x, rule, at::empty({8, 3}).t()), ShapeError);
  EXPECT_THROW(round_backward(x, scale, x.to(at::kDouble), rule, at::empty({3, 8})), ShapeError);
  EXPECT_THROW(round_backward(at::empty({3, 8}, at::kMeta), scale, x, rule, at::empty({3, 8})), ShapeError);
}

}  // namespace retort::kernels
