#include "quantize/learned_scale.h"

#include <ATen/Parallel.h>

#include "core/random.h"
#include "tests/testing.h"

namespace retort::quantize {
namespace {

using testing::same_bits;

at::Tensor normals(std::vector<int64_t> shape, double std, const char* name) {
  at::Tensor x = at::empty(shape);
  Random(7, name).fill_normal(x, std);
  return x;
}

std::vector<const Grid*> learned_grids() {
  std::vector<const Grid*> out;
  for (const Grid& grid : grids())
    if (grid.learned) out.push_back(&grid);
  return out;
}

TEST(LearnedScale, IsPositiveAnF16NumberAndInRange) {
  const at::Tensor theta = at::tensor({-100.0f, -12.0f, -4.0f, 0.0f, 3.0f, 100.0f}).unsqueeze(1);
  const at::Tensor scale = learned_scales(theta).scale;
  EXPECT_TRUE(same_bits(scale, scale.to(at::kHalf).to(at::kFloat)));
  EXPECT_EQ(scale.min().item<float>(), 0x1p-14f);
  EXPECT_EQ(scale.max().item<float>(), 65504.0f);
  EXPECT_TRUE(same_bits(learned_scales(theta_of(learned_scales(theta))).scale, scale)) << "log and back";
}

TEST(LearnedScale, StartsAtItsMultipleOfTheMeanMagnitude) {
  const at::Tensor w = normals({8, 512}, 0.02, "start");
  const at::Tensor mean = w.abs().mean(1, true);
  EXPECT_LT(testing::relative_error(grids().at("seq2").fit(w, {}).scale * 4, mean * 2.2), 1e-3);
  EXPECT_LT(testing::relative_error(grids().at("lsq4").fit(w, {}).scale, mean * 0.42), 1e-3);
}

// The rule of the header, element by element in f64.
TEST(LearnedScale, GradientsFollowTheRule) {
  for (const Grid* grid : learned_grids()) {
    const at::Tensor w = normals({5, 300}, 0.03, "w"), g = normals({5, 300}, 1.0, "g");
    const at::Tensor theta = theta_of(grid->fit(w, {})) - 0.4;  // smaller scales: more is clipped
    const Scales scales = learned_scales(theta);
    const at::Tensor value = dequantize_blocks({grid->round(w, scales), scales}).to(at::kDouble);
    const at::Tensor v = (w / scales.scale);
    const at::Tensor inside = v.ge(grid->learned->low).logical_and(v.le(grid->learned->high)).to(at::kDouble);
    const at::Tensor follows = grid->learned->follows ? inside : at::zeros_like(inside);
    const double gamma = 1.0 / std::sqrt(static_cast<double>(w.numel() * grid->learned->levels));
    const at::Tensor expected =
        (g.to(at::kDouble) * (value - follows * w.to(at::kDouble))).sum(1, true) * gamma;
    const LearnedGradient got = pull_back(*grid, w, theta, g);
    EXPECT_LT(inside.mean().item<double>(), 1.0) << grid->name << ": nothing is clipped";
    EXPECT_GT(inside.mean().item<double>(), 0.1) << grid->name;
    EXPECT_TRUE(at::equal(got.weight, (g * inside).to(at::kFloat))) << grid->name;
    EXPECT_LT(testing::relative_error(got.theta, expected), 1e-5) << grid->name;
  }
}

// Where rounding is followed straight through, the rule is the derivative of scale * (v + constant) inside
// and of scale * constant outside: a finite difference of theta with codes' roundings held says so.
TEST(LearnedScale, GradientIsTheDerivativeWithRoundingsHeld) {
  for (const Grid* grid : learned_grids()) {
    const at::Tensor w = normals({3, 256}, 0.03, "w"), g = normals({3, 256}, 1.0, "g");
    const at::Tensor theta = theta_of(grid->fit(w, {})) - 0.3;
    const at::Tensor s = learned_scales(theta).scale.to(at::kDouble);
    const at::Tensor code = grid->round(w, learned_scales(theta)).to(at::kDouble), v = w.to(at::kDouble) / s;
    const at::Tensor inside = v.ge(grid->learned->low).logical_and(v.le(grid->learned->high));
    const at::Tensor held = grid->learned->follows ? at::where(inside, code - v, code) : code;
    const auto loss = [&](double by) {  // v moves as 1 / s where it is followed
      const at::Tensor t = s * std::exp(by);
      const at::Tensor moved = grid->learned->follows ? at::where(inside, w / t + held, held) : held;
      return (g * t * moved).sum(1, true);
    };
    const double h = 1e-4, gamma = 1.0 / std::sqrt(static_cast<double>(w.numel() * grid->learned->levels));
    const at::Tensor numeric = (loss(h) - loss(-h)) / (2 * h) * gamma;
    EXPECT_LT(testing::relative_error(pull_back(*grid, w, theta, g).theta, numeric), 1e-4) << grid->name;
  }
}

TEST(LearnedScale, AGradientMayBeOverwritten) {
  for (const Grid* grid : learned_grids()) {
    const at::Tensor w = normals({6, 300}, 0.03, "w"), g = normals({6, 300}, 1.0, "g");
    const at::Tensor theta = theta_of(grid->fit(w, {})) - 0.4;
    const LearnedGradient expected = pull_back(*grid, w, theta, g), got = pull_back(*grid, w, theta, g, g);
    EXPECT_TRUE(got.weight.is_same(g)) << grid->name;
    EXPECT_TRUE(same_bits(got.weight, expected.weight)) << grid->name;
    EXPECT_TRUE(same_bits(got.theta, expected.theta)) << grid->name;
  }
}

TEST(LearnedScale, TheNumberOfThreadsChangesNothing) {
  const at::Tensor w = normals({257, 1100}, 0.03, "w"), g = normals({257, 1100}, 1.0, "g");
  const Grid& grid = grids().at("lsq3");
  const at::Tensor theta = theta_of(grid.fit(w, {}));
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const LearnedGradient one = pull_back(grid, w, theta, g);
  at::set_num_threads(4);
  const LearnedGradient many = pull_back(grid, w, theta, g);
  at::set_num_threads(threads);
  EXPECT_TRUE(same_bits(one.weight, many.weight));
  EXPECT_TRUE(same_bits(one.theta, many.theta));
}

}  // namespace
}  // namespace retort::quantize
