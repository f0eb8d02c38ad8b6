#include "kernels/activation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/reference.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

struct Case {
  const char* name;
  Operation ours, plain;
  size_t inputs;
  float far_value = 1e4f, far_slope = 1.0f;  // of the gate at 1e4
};

std::vector<Case> cases() {
  return {{"swiglu", [](const Tensors& t) { return swiglu(t[0], t[1]); },
           [](const Tensors& t) { return reference::swiglu(t[0], t[1]); }, 2},
          {"geglu", [](const Tensors& t) { return geglu(t[0], t[1]); },
           [](const Tensors& t) { return reference::geglu(t[0], t[1]); }, 2},
          {"relu2glu", [](const Tensors& t) { return relu2glu(t[0], t[1]); },
           [](const Tensors& t) { return reference::relu2glu(t[0], t[1]); }, 2, 1e8f, 2e4f},
          {"gelu_tanh", [](const Tensors& t) { return gelu_tanh(t[0]); },
           [](const Tensors& t) { return reference::gelu_tanh(t[0]); }, 1}};
}

Tensors inputs_of(const Case& c, at::IntArrayRef shape, double std) {
  Tensors inputs{normal(shape, 1, std)};
  if (c.inputs == 2) inputs.push_back(normal(shape, 2));
  return inputs;
}

TEST(Activation, MatchesFp64OnOddShapes) {
  for (const Case& c : cases())
    for (int64_t n : {1, 5, 123, 1025})
      for (int64_t f : {7, 64, 123})
        expect_as_good(fmt::format("{} {}x{}", c.name, n, f), c.ours, c.plain, inputs_of(c, {n, f}, 3.0));
}

TEST(Activation, MatchesFp64InBf16) {
  for (const Case& c : cases())
    expect_as_good(c.name, c.ours, c.plain, inputs_of(c, {5, 123}, 3.0), at::kBFloat16);
}

TEST(Activation, IsFiniteFarOut) {
  const at::Tensor gate = at::tensor({-1e4f, -200.f, -89.f, -1e-30f, 0.f, 89.f, 200.f, 1e4f});
  for (const Case& c : cases()) {
    const Outcome out =
        run(c.ours, c.inputs == 2 ? Tensors{gate, at::ones_like(gate)} : Tensors{gate}, at::kFloat);
    EXPECT_TRUE(out.value.isfinite().all().item<bool>()) << c.name;
    EXPECT_TRUE(out.gradients[0].isfinite().all().item<bool>()) << c.name;
    EXPECT_FLOAT_EQ(out.value[7].item<float>(), c.far_value) << c.name;
    EXPECT_LT(std::abs(out.value[0].item<float>()), 1e-30f) << c.name;
    EXPECT_LT(std::abs(out.gradients[0][0].item<float>()), 1e-30f) << c.name;
    EXPECT_FLOAT_EQ(out.gradients[0][7].item<float>(), c.far_slope * normal({8}, 99)[7].item<float>())
        << c.name;
  }
}

TEST(Activation, KeepsNaN) {
  const at::Tensor gate = at::full({5}, std::nanf("")), up = at::ones({5});
  for (const Case& c : cases())
    EXPECT_TRUE(c.ours(c.inputs == 2 ? Tensors{gate, up} : Tensors{gate}).isnan().all().item<bool>())
        << c.name;
}

TEST(Activation, TakesSlicesOfOneProduct) {
  const auto split = [](const Operation& op) {
    return Operation([op](const Tensors& t) { return op({t[0].narrow(1, 0, 20), t[0].narrow(1, 20, 20)}); });
  };
  expect_as_good("slices", split(cases()[0].ours), split(cases()[0].plain), {normal({9, 40}, 1)});
}

TEST(Activation, NamesUnequalShapes) {
  EXPECT_THROW(swiglu(at::zeros({2, 3}), at::zeros({2, 4})), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
