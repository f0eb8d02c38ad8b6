#include "kernels/divergences.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <bit>
#include <cmath>

#include "core/error.h"
#include "kernels/row_losses.h"
#include "kernels/row_sums.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

struct Case {
  const char* name;
  Divergence kind;
  double mix;
};
constexpr Case kCases[] = {{"reverse KL", Divergence::kReverseKl, 0.0},
                           {"JSD .5", Divergence::kJsd, 0.5},
                           {"JSD .9", Divergence::kJsd, 0.9},
                           {"skew forward KL .1", Divergence::kSkewForwardKl, 0.1},
                           {"skew forward KL 0", Divergence::kSkewForwardKl, 0.0},
                           {"skew reverse KL .1", Divergence::kSkewReverseKl, 0.1},
                           {"total variation", Divergence::kTotalVariation, 0.0},
                           {"adaptive KL", Divergence::kAdaptiveKl, 0.0}};

at::Tensor kl(const at::Tensor& a, const at::Tensor& b) { return (a * (a.log() - b.log())).sum(-1); }

// The definitions, by LibTorch's autograd.
at::Tensor definition(const Case& c, const at::Tensor& student, const at::Tensor& teacher, double T) {
  const at::Tensor q = at::softmax(student / T, -1), p = at::softmax(teacher / T, -1);
  const double a = c.mix;
  at::Tensor rows;
  switch (c.kind) {
    case Divergence::kReverseKl:
      rows = kl(q, p);
      break;
    case Divergence::kJsd:
      rows = a * kl(p, a * p + (1 - a) * q) + (1 - a) * kl(q, a * p + (1 - a) * q);
      break;
    case Divergence::kSkewForwardKl:
      rows = kl(p, a * p + (1 - a) * q);
      break;
    case Divergence::kSkewReverseKl:
      rows = kl(q, (1 - a) * p + a * q);
      break;
    case Divergence::kTotalVariation:
      rows = 0.5 * (p - q).abs().sum(-1);
      break;
    case Divergence::kAdaptiveKl: {
      std::vector<at::Tensor> shares;
      for (int64_t row = 0; row < p.size(0); ++row) {  // by falling probability until half is reached
        double mass = 0, head = 0, least = 0, all = (p[row] - q[row]).abs().sum().item<double>();
        const at::Tensor order = at::argsort(p[row], 0, true);
        for (int64_t i = 0; i < order.numel(); ++i) {
          const auto j = order[i].item<int64_t>();
          const double of_p = p[row][j].item<double>();
          if (mass >= 0.5 && of_p < least * (1 - 1e-12)) break;
          if (mass < 0.5) least = of_p;
          mass += of_p;
          head += std::abs(of_p - q[row][j].item<double>());
        }
        shares.push_back(at::scalar_tensor(head / all, at::kDouble));
      }
      const at::Tensor w = at::stack(shares);
      rows = w * kl(p, q) + (1 - w) * kl(q, p);
      break;
    }
  }
  return T * T * rows.sum();
}

at::Tensor logit_mse_definition(const at::Tensor& student, const at::Tensor& teacher) {
  const auto centred = [](const at::Tensor& z) { return z - z.mean(-1, true); };
  return (centred(student) - centred(teacher)).square().mean(-1).sum();
}

struct Exact {
  double value;
  at::Tensor gradient;
};
Exact exact(const std::function<at::Tensor(const at::Tensor&)>& loss, const at::Tensor& student) {
  const at::Tensor z = student.to(at::kDouble).detach().requires_grad_(true);
  const at::Tensor value = loss(z);
  return {value.item<double>(), torch::autograd::grad({value}, {z})[0]};
}

// On every instruction set, odd sizes. Each place is some thirty roundings deep, and the scale of a loss or
// gradient is that of its terms, T^2 and T.
TEST(Divergences, LoopsAgreeWithTheDefinitionsInDouble) {
  for (const Case& c : kCases)
    for (const double T : {1.0, 2.5})
      for (const int64_t v : {2, 77, 1031}) {
        const at::Tensor z = normal({5, v}, 1, 3.0).to(at::kFloat), t = normal({5, v}, 2, 3.0).to(at::kFloat);
        const Exact e = exact([&](const at::Tensor& x) { return definition(c, x, t.to(at::kDouble), T); }, z);
        for (const cpu::Table* table : cpu::all_cpu_tables()) {
          const std::string what = fmt::format("{} T {} V {} {}", c.name, T, v, table->name);
          at::Tensor loss = at::empty({5}, at::kDouble), gradient = at::zeros_like(z),
                     scratch = at::empty({2 * v});
          const cpu::DivergenceRows rows{c.kind, static_cast<float>(c.mix), static_cast<float>(T), 0.5f, 5, v,
                                         v};
          table->divergence(rows, z.const_data_ptr<float>(), t.const_data_ptr<float>(),
                            loss.mutable_data_ptr<double>(), gradient.mutable_data_ptr<float>(),
                            scratch.mutable_data_ptr<float>());
          EXPECT_NEAR(loss.sum().item<double>(), e.value, 64 * 0x1p-23 * T * T * (1 + e.value / 5)) << what;
          EXPECT_LE(worst_error(gradient, 0.5 * e.gradient), 64 * 0x1p-23 * T) << what;
          at::Tensor again = at::empty({5}, at::kDouble);
          table->divergence(rows, z.const_data_ptr<float>(), t.const_data_ptr<float>(),
                            again.mutable_data_ptr<double>(), nullptr, scratch.mutable_data_ptr<float>());
          EXPECT_TRUE(at::equal(loss, again)) << what << ": the value alone";
        }
      }
}

TEST(Divergences, PlainVersionAgreesWithTheDefinitions) {
  const at::Tensor z = normal({7, 33}, 1, 3.0), t = normal({7, 33}, 2, 3.0);
  const at::Tensor labels = at::zeros({7}, at::kLong);
  for (const Case& c : kCases) {
    const Exact e = exact([&](const at::Tensor& x) { return definition(c, x, t, 2.5); }, z);
    at::Tensor gradient = at::zeros_like(z);
    const at::Tensor value = divergence_rows(c.kind, 2.5, c.mix)({z, t, labels}, 0.5, gradient);
    EXPECT_NEAR(value.item<double>(), e.value, 1e-12) << c.name;
    EXPECT_LE(worst_error(gradient, 0.5 * e.gradient), 1e-13) << c.name;
  }
  const Exact e = exact([&](const at::Tensor& x) { return logit_mse_definition(x, t); }, z);
  at::Tensor gradient = at::zeros_like(z);
  EXPECT_NEAR(logit_mse_rows()({z, t, labels}, 0.5, gradient).item<double>(), e.value, 1e-12);
  EXPECT_LE(worst_error(gradient, 0.5 * e.gradient), 1e-13);
}

TEST(Divergences, LogitMseAgreesWithItsDefinition) {
  for (const int64_t v : {1, 2, 77, 1031}) {
    const at::Tensor z = normal({5, v}, 1, 3.0).to(at::kFloat), t = normal({5, v}, 2, 3.0).to(at::kFloat);
    const Exact e = exact([&](const at::Tensor& x) { return logit_mse_definition(x, t.to(at::kDouble)); }, z);
    for (const cpu::Table* table : cpu::all_cpu_tables()) {
      at::Tensor loss = at::empty({5}, at::kDouble), gradient = at::zeros_like(z);
      table->logit_mse({.scale = 0.5f, .rows = 5, .vocabulary = v, .student_stride = v},
                       z.const_data_ptr<float>(), t.const_data_ptr<float>(), loss.mutable_data_ptr<double>(),
                       gradient.mutable_data_ptr<float>(), nullptr);
      EXPECT_NEAR(loss.sum().item<double>(), e.value, 32 * 0x1p-23 * (1 + e.value)) << table->name;
      EXPECT_LE(worst_error(gradient, 0.5 * e.gradient), 32 * 0x1p-23) << table->name;
    }
  }
}

struct Named {
  std::string name;
  RowLoss loss;
};
std::vector<Named> all_losses() {
  std::vector<Named> out = {{"forward KL", forward_kl_rows(1.5)}, {"logit MSE", logit_mse_rows()}};
  for (const Case& c : kCases) out.push_back({c.name, divergence_rows(c.kind, 1.5, c.mix)});
  return out;
}

// A padded head of the student's: its extra columns change nothing and get nothing.
TEST(Divergences, CompareTheTokensInCommon) {
  const at::Tensor z = normal({6, 40}, 1, 2.0).to(at::kFloat), t = normal({6, 37}, 2, 2.0).to(at::kFloat);
  const at::Tensor labels = at::zeros({6}, at::kLong);
  for (const Named& loss : all_losses()) {
    at::Tensor cut = at::zeros({6, 37}), padded = at::zeros({6, 40});
    const at::Tensor alone = loss.loss({z.narrow(1, 0, 37).contiguous(), t, labels}, 1.0, cut);
    const at::Tensor value = loss.loss({z, t, labels, {}, {}, 37}, 1.0, padded);
    EXPECT_TRUE(at::equal(value, alone)) << loss.name;
    EXPECT_TRUE(at::equal(padded.narrow(1, 0, 37), cut)) << loss.name;
    EXPECT_EQ(padded.narrow(1, 37, 3).abs().max().item<float>(), 0.0f) << loss.name;
  }
}

// Ids that the teacher rules out: finite, and the same from the loops as from the plain version in f64.
TEST(Divergences, StayFiniteWhereTheTeacherRulesOut) {
  at::Tensor z = normal({4, 33}, 1, 2.0), t = normal({4, 33}, 2, 2.0);
  for (const int64_t j : {0, 5, 32}) t.select(1, j).fill_(-INFINITY);
  const at::Tensor labels = at::zeros({4}, at::kLong);
  for (const Named& loss : all_losses()) {
    at::Tensor exact = at::zeros_like(z), fast = at::zeros({4, 33});
    const double value = loss.loss({z, t, labels}, 1.0, exact).item<double>();
    const double ours = loss.loss({z.to(at::kFloat), t.to(at::kFloat), labels}, 1.0, fast).item<double>();
    ASSERT_TRUE(std::isfinite(value)) << loss.name;
    EXPECT_NEAR(ours, value, 256 * 0x1p-23 * (1 + std::abs(value))) << loss.name;
    EXPECT_LE(worst_error(fast, exact), 256 * 0x1p-23 * (1 + exact.abs().max().item<double>())) << loss.name;
  }
}

// Of teacher or student, in any place: the step's guard must see it.
TEST(Divergences, ShowALogitThatIsNoNumber) {
  const float loud = std::bit_cast<float>(0x7fffffffu);  // what a GPU makes
  for (const Named& loss : all_losses())
    for (const float bad : {std::nanf(""), loud, static_cast<float>(INFINITY)})
      for (const int64_t j : {0, 15, 31, 32})
        for (const bool teachers : {false, true}) {
          at::Tensor z = normal({4, 33}, 1).to(at::kFloat), t = normal({4, 33}, 2).to(at::kFloat);
          (teachers ? t : z)[2][j] = bad;
          at::Tensor gradient = at::zeros_like(z);
          const at::Tensor value = loss.loss({z, t, at::ones({4}, at::kLong)}, 1.0, gradient);
          EXPECT_FALSE(std::isfinite(value.item<double>()) && at::isfinite(gradient).all().item<bool>())
              << loss.name << " " << bad << " at " << j << (teachers ? " of the teacher" : " of the student");
        }
}

// Far from agreement, where p or q is too small for a float on most ids.
TEST(Divergences, StayFiniteFarApart) {
  const at::Tensor z = normal({4, 33}, 1, 300.0).to(at::kFloat), t = normal({4, 33}, 2, 300.0).to(at::kFloat);
  for (const Named& loss : all_losses()) {
    at::Tensor gradient = at::zeros_like(z);
    const at::Tensor value = loss.loss({z, t, at::zeros({4}, at::kLong)}, 1.0, gradient);
    EXPECT_TRUE(std::isfinite(value.item<double>())) << loss.name;
    EXPECT_TRUE(at::isfinite(gradient).all().item<bool>()) << loss.name;
  }
}

TEST(Divergences, DoNotFollowTheDivisionOfWork) {
  const at::Tensor t = normal({67, 1031}, 2).to(at::kFloat), labels = at::zeros({67}, at::kLong);
  for (const Named& loss : all_losses()) {
    const auto once = [&](int threads) {
      at::set_num_threads(threads);
      at::Tensor gradient = at::zeros_like(t);
      const at::Tensor value = loss.loss({normal({67, 1031}, 1).to(at::kFloat), t, labels}, 1.0, gradient);
      return at::cat({gradient.flatten().to(at::kDouble), value.view({1})});
    };
    const int before = at::get_num_threads();
    EXPECT_TRUE(same_bits(once(1), once(2))) << loss.name;
    at::set_num_threads(before);
  }
}

TEST(Divergences, NameWrongParameters) {
  EXPECT_THROW(divergence_rows(Divergence::kJsd, 1.0, 0.0), ConfigError);
  EXPECT_THROW(divergence_rows(Divergence::kJsd, 1.0, 1.0), ConfigError);
  EXPECT_THROW(divergence_rows(Divergence::kSkewReverseKl, 1.0, 0.0), ConfigError);
  EXPECT_THROW(divergence_rows(Divergence::kReverseKl, 0.0), ConfigError);
  at::Tensor none;
  EXPECT_THROW(divergence_rows(Divergence::kReverseKl, 1.0)({at::zeros({2, 3}), {}, {}}, 1.0, none),
               ShapeError);
}

// Where a device's kernel would make them.
TEST(Divergences, AreNamedWhereATeacherIsMissing) {
  const LogitRows rows{at::zeros({2, 3}), {}, at::zeros({2}, at::kLong)};
  const auto trouble = [&](const RowLoss& loss) -> std::string {
    try {
      device_term(*loss.kernel, 1.0, rows);
    } catch (const ShapeError& error) {
      return error.what();
    }
    return "none";
  };
  const std::pair<const char*, RowLoss> losses[] = {
      {"forward_kl", forward_kl_rows(1.0)},
      {"reverse_kl", divergence_rows(Divergence::kReverseKl, 1.0)},
      {"jsd", divergence_rows(Divergence::kJsd, 1.0, 0.5)},
      {"skew_forward_kl", divergence_rows(Divergence::kSkewForwardKl, 1.0, 0.1)},
      {"skew_reverse_kl", divergence_rows(Divergence::kSkewReverseKl, 1.0, 0.1)},
      {"total_variation", divergence_rows(Divergence::kTotalVariation, 1.0)},
      {"adaptive_kl", divergence_rows(Divergence::kAdaptiveKl, 1.0)},
      {"logit_mse", logit_mse_rows()}};
  for (const auto& [name, loss] : losses)
    EXPECT_EQ(trouble(loss), fmt::format("[linear_distill] {} needs a teacher's logits, got none", name));
  EXPECT_EQ(trouble(cross_entropy_rows()), "none");
}

}  // namespace
}  // namespace retort::kernels
