// What only forward KL promises: its known values, its direction, its gradient in closed form.
#include "core/random.h"
#include "distill/loss.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

kernels::RowLoss forward_kl_at(double temperature) {
  return losses().at("forward_kl").make({.temperature = temperature});
}

at::Tensor logits_of(std::vector<double> probabilities) {
  return at::tensor(probabilities, at::kDouble).log().to(at::kFloat).unsqueeze(0);
}

// KL((.9, .1) || (.5, .5)) = .9 ln 1.8 + .1 ln .2 = .3681; the other direction is .5108.
TEST(ForwardKl, KnownValueAndDirection) {
  at::Tensor gradient = at::zeros({1, 2});
  const kernels::LogitRows rows{logits_of({.5, .5}), logits_of({.9, .1}), at::zeros({1}, at::kLong)};
  const double loss = forward_kl_at(1.0)(rows, 1.0, gradient).item<double>();
  EXPECT_NEAR(loss, 0.9 * std::log(1.8) + 0.1 * std::log(0.2), 1e-6);
  EXPECT_NEAR(gradient[0][0].item<double>(), -0.4, 1e-6);  // q - p
  EXPECT_NEAR(gradient[0][1].item<double>(), 0.4, 1e-6);
}

// In f64, from probabilities, by the definition: T^2 sum p (log p - log q) and T (q - p).
TEST(ForwardKl, AgreesWithTheDefinitionInDouble) {
  at::Tensor student = at::empty({33, 101}), teacher = at::empty({33, 101});
  Random(5, "test/student").fill_normal(student, 3);
  Random(6, "test/teacher").fill_normal(teacher, 3);
  for (const double T : {0.5, 1.0, 4.0}) {
    const at::Tensor q = at::softmax(student.to(at::kDouble) / T, -1),
                     p = at::softmax(teacher.to(at::kDouble) / T, -1);
    const double expected = T * T * (p * (p.log() - q.log())).sum().item<double>();
    at::Tensor gradient = at::zeros_like(student);
    const double loss =
        forward_kl_at(T)({student, teacher, at::zeros({33}, at::kLong)}, 1.0, gradient).item<double>();
    EXPECT_NEAR(loss, expected, 2e-6 * expected) << T;
    EXPECT_LT(testing::relative_error(gradient, T * (q - p)), 2e-6) << T;
  }
}

// Large T: T (q - p) tends to the difference of centred logits over V. Terms of order 1/T are left out: 3 z /
// T.
TEST(ForwardKl, GradientKeepsItsSizeAtHighTemperature) {
  at::Tensor student = at::empty({4, 9}), teacher = at::empty({4, 9}), gradient = at::zeros({4, 9});
  Random(5, "test/student").fill_normal(student, 1);
  Random(6, "test/teacher").fill_normal(teacher, 1);
  forward_kl_at(1000.0)({student, teacher, at::zeros({4}, at::kLong)}, 1.0, gradient);
  const at::Tensor difference = student - teacher;
  EXPECT_LT(testing::relative_error(gradient, (difference - difference.mean(-1, true)) / 9), 0.01);
}

TEST(ForwardKl, TokensThatTheTeacherRulesOutCostNothing) {
  const at::Tensor teacher = at::tensor({0.0, 0.0, -INFINITY}, at::kFloat).unsqueeze(0);
  at::Tensor gradient = at::zeros({1, 3});
  const double loss =
      forward_kl_at(1.0)({at::zeros({1, 3}), teacher, at::zeros({1}, at::kLong)}, 1.0, gradient)
          .item<double>();
  EXPECT_NEAR(loss, std::log(1.5), 1e-6);  // KL((1/2, 1/2, 0) || (1/3, 1/3, 1/3))
  EXPECT_NEAR(gradient[0][2].item<double>(), 1.0 / 3, 1e-6);
}

}  // namespace
}  // namespace retort::distill
