#include "kernels/fake_quantize.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

TEST(FakeQuantize, RoundsForwardAndPassesTheGradientThrough) {
  const auto to_grid = [](const at::Tensor& x) { return (x * 4).round() / 4; };
  const at::Tensor x = normal({5, 7}, 1).to(at::kFloat);
  const Outcome out = run([&](const Tensors& t) { return fake_quantize(t[0], to_grid); }, {x}, at::kFloat);
  EXPECT_TRUE(same_bits(out.value, to_grid(x)));
  EXPECT_TRUE(same_bits(out.gradients[0], normal({5, 7}, 99).to(at::kFloat)));
}

TEST(FakeQuantize, AcceptsARoundThatKeepsItsInput) {
  const at::Tensor x = normal({3}, 1);
  const Outcome out =
      run([](const Tensors& t) { return fake_quantize(t[0], [](const at::Tensor& y) { return y; }); }, {x},
          at::kFloat);
  EXPECT_TRUE(same_bits(out.gradients[0], normal({3}, 99).to(at::kFloat)));
}

TEST(FakeQuantize, RefusesARoundThatReshapes) {
  EXPECT_THROW(fake_quantize(at::zeros({4}), [](const at::Tensor& x) { return x.narrow(0, 0, 2); }),
               ShapeError);
}

}  // namespace
}  // namespace retort::kernels
