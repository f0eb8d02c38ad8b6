// Every test here walks the registry, so a new loss gets them with its row. Losses on hidden states have no
// rows of logits; hidden_loss_test.cpp and objective_test.cpp walk those. C rows, V vocabulary.
#include "distill/loss.h"

#include <cmath>

#include "core/random.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

using testing::relative_error;

constexpr double kEpsilon = 1.0 / (1 << 23);  // f32

struct Case {
  LossOptions options;
  const LossSpec* spec;
  kernels::RowLoss loss;
};

bool takes(const LossSpec& spec, const std::string& parameter) {
  return std::find(spec.parameters.begin(), spec.parameters.end(), parameter) != spec.parameters.end();
}

std::vector<Case> all_losses() {
  std::vector<Case> cases;
  for (const LossSpec& spec : losses()) {
    if (!spec.make) continue;
    for (const double temperature : {1.0, 2.5}) {
      if (temperature != 1.0 && !takes(spec, "temperature")) continue;
      const LossOptions options{.fn = spec.name, .temperature = temperature, .k = 3, .draws = 20};
      cases.push_back({options, &spec, spec.make(options)});
    }
  }
  return cases;
}

std::string name(const Case& c) { return fmt::format("{} at T = {}", c.options.fn, c.options.temperature); }

kernels::LogitRows sample_rows(int64_t rows = 5, int64_t vocabulary = 7, at::ScalarType dtype = at::kFloat) {
  at::Tensor student = at::empty({rows, vocabulary}), teacher = at::empty({rows, vocabulary});
  Random(1, "test/student").fill_normal(student, 1.5);
  Random(2, "test/teacher").fill_normal(teacher, 1.5);
  return {student.to(dtype), teacher.to(dtype), at::arange(rows) % vocabulary, {}, at::arange(rows) + 100};
}

kernels::LogitRows slice(const kernels::LogitRows& rows, int64_t begin, int64_t end) {
  return {rows.student_CV.slice(0, begin, end),
          rows.teacher_CV.slice(0, begin, end),
          rows.labels_C.slice(0, begin, end),
          {},
          rows.places_C.slice(0, begin, end)};
}

double value(const Case& c, const kernels::LogitRows& rows) {
  at::Tensor none;
  return c.loss(rows, 1.0, none).item<double>();
}

at::Tensor gradient(const Case& c, const kernels::LogitRows& rows, double scale = 1.0) {
  at::Tensor out = at::zeros_like(rows.student_CV);
  c.loss(rows, scale, out);
  return out;
}

struct Size {
  int64_t rows, vocabulary;
};
constexpr Size kOddSizes[] = {{1, 2}, {5, 7}, {3, 77}};

// In f64 by central differences with h = 1e-5: truncation is h^2 / 6 times a third derivative of order T^2,
// the rest the value's rounding over h.
TEST(Losses, GradientIsTheDerivativeOfTheValue) {
  const double h = 1e-5;
  for (const Case& c : all_losses())
    for (const Size size : kOddSizes) {
      const kernels::LogitRows rows = sample_rows(size.rows, size.vocabulary, at::kDouble);
      const at::Tensor g = gradient(c, rows);
      EXPECT_GT(g.abs().max().item<double>(), 1e-3) << name(c) << ": a zero gradient would pass";
      if (!c.spec->exact) continue;
      const auto shifted = [&](int64_t i, double by) {
        kernels::LogitRows moved = rows;
        moved.student_CV = rows.student_CV.clone();
        moved.student_CV.view(-1)[i] += by;
        return value(c, moved);
      };
      for (int64_t i = 0; i < g.numel(); ++i)
        EXPECT_NEAR(g.view(-1)[i].item<double>(), (shifted(i, h) - shifted(i, -h)) / (2 * h), 1e-8)
            << name(c) << ", logit " << i << " of " << g.numel();
    }
}

// What runs in training against the plain version in f64. A place is some thirty roundings deep.
TEST(Losses, AgreeWithDouble) {
  for (const Case& c : all_losses())
    for (const Size size : {Size{1, 2}, {5, 7}, {3, 77}, {4, 1031}}) {
      const kernels::LogitRows rows = sample_rows(size.rows, size.vocabulary);
      kernels::LogitRows exact = rows;
      exact.student_CV = rows.student_CV.to(at::kDouble), exact.teacher_CV = rows.teacher_CV.to(at::kDouble);
      const double T = c.options.temperature, expected = value(c, exact);
      EXPECT_NEAR(value(c, rows), expected, 64 * kEpsilon * (T * T + std::abs(expected))) << name(c);
      EXPECT_LT((gradient(c, rows) - gradient(c, exact)).abs().max().item<double>(), 64 * kEpsilon * T)
          << name(c);
    }
}

TEST(Losses, GradientIsScaledAndAdded) {
  for (const Case& c : all_losses()) {
    const kernels::LogitRows rows = sample_rows();
    const at::Tensor once = gradient(c, rows);
    at::Tensor sum = at::full_like(once, 3.0);
    const double loss = c.loss(rows, 0.25, sum).item<double>();
    EXPECT_LT((sum - 3.0 - 0.25 * once).abs().max().item<double>(), 4 * kEpsilon * 4) << name(c);
    EXPECT_DOUBLE_EQ(loss, value(c, rows)) << name(c) << ": scale and gradient do not touch the value";
  }
}

// A shift of a row's logits changes no softmax, so no loss depends on it: the gradient sums to nothing.
TEST(Losses, GradientOfARowSumsToZero) {
  for (const Case& c : all_losses())
    EXPECT_LT(gradient(c, sample_rows()).sum(-1).abs().max().item<double>(), 32 * kEpsilon) << name(c);
}

// loss_T(z, z^t) = T^2 loss_1(z / T, z^t / T): the gradient keeps its size, T times that at the softer
// logits.
TEST(Losses, TemperatureSoftensBothAndScalesByItsSquare) {
  for (const Case& c : all_losses()) {
    const double T = c.options.temperature;
    if (T == 1.0) continue;
    const kernels::LogitRows rows = sample_rows(4, 33, at::kDouble);
    kernels::LogitRows soft = rows;
    soft.student_CV = rows.student_CV / T, soft.teacher_CV = rows.teacher_CV / T;
    LossOptions at_one = c.options;
    at_one.temperature = 1.0;
    const Case one{at_one, c.spec, c.spec->make(at_one)};
    EXPECT_NEAR(value(c, rows), T * T * value(one, soft), 1e-10) << name(c);
    EXPECT_LT(relative_error(gradient(c, rows), T * gradient(one, soft)), 1e-10) << name(c);
  }
}

TEST(Losses, AddUpOverChunks) {
  for (const Case& c : all_losses()) {
    const kernels::LogitRows rows = sample_rows();
    EXPECT_NEAR(value(c, slice(rows, 0, 2)) + value(c, slice(rows, 2, 5)), value(c, rows),
                16 * kEpsilon * std::abs(value(c, rows)))
        << name(c);
    const at::Tensor parts = at::cat({gradient(c, slice(rows, 0, 2)), gradient(c, slice(rows, 2, 5))});
    EXPECT_LT((parts - gradient(c, rows)).abs().max().item<double>(), 8 * kEpsilon) << name(c);
    EXPECT_EQ(value(c, slice(rows, 2, 2)), 0.0) << name(c) << ": no rows";
  }
}

TEST(Losses, DivergencesVanishOnlyWhereTeacherAndStudentAgree) {
  for (const Case& c : all_losses()) {
    if (!c.spec->divergence) continue;
    kernels::LogitRows rows = sample_rows();
    EXPECT_GT(value(c, rows), 0.01) << name(c);
    rows.teacher_CV = rows.student_CV.clone();
    const double size = c.options.temperature * c.options.temperature * 5;
    EXPECT_NEAR(value(c, rows), 0.0, 16 * kEpsilon * size) << name(c);
    EXPECT_LT(gradient(c, rows).abs().max().item<double>(), 16 * kEpsilon * size) << name(c);
  }
}

// Columns of a padded student's head beyond the tokens in common.
TEST(Losses, WithATeacherLeavePaddingAlone) {
  for (const Case& c : all_losses()) {
    if (!c.spec->needs_teacher()) continue;
    const kernels::LogitRows rows = sample_rows(4, 29);
    kernels::LogitRows padded = rows;
    padded.student_CV = at::cat({rows.student_CV, at::full({4, 3}, 9.0)}, 1);
    padded.vocabulary = 29;
    EXPECT_EQ(value(c, padded), value(c, rows)) << name(c);
    const at::Tensor g = gradient(c, padded);
    EXPECT_TRUE(at::equal(g.narrow(1, 0, 29), gradient(c, rows))) << name(c);
    EXPECT_EQ(g.narrow(1, 29, 3).abs().max().item<double>(), 0.0) << name(c);
  }
}

// Row 1 and 3 are ignored: no part, no gradient of theirs, and the same for every way of chunking.
TEST(Losses, IgnoredRowsTakeNoPartThroughLinearDistill) {
  at::Tensor h = at::empty({5, 6}), weight = at::empty({7, 6}), teacher_h = at::empty({5, 4}),
             teacher_w = at::empty({7, 4});
  Random(3, "test/h").fill_normal(h, 1);
  Random(3, "test/w").fill_normal(weight, 1);
  Random(3, "test/th").fill_normal(teacher_h, 1);
  Random(3, "test/tw").fill_normal(teacher_w, 1);
  at::Tensor labels = at::arange(5);
  labels[1] = labels[3] = kernels::kIgnoredLabel;
  const at::Tensor valid = labels.ne(kernels::kIgnoredLabel).nonzero().flatten(), places = at::arange(5) + 40;
  for (const Case& c : all_losses()) {
    const double expected = value(c, {h.index_select(0, valid).matmul(weight.t()),
                                      teacher_h.index_select(0, valid).matmul(teacher_w.t()),
                                      labels.index_select(0, valid),
                                      {},
                                      places.index_select(0, valid)});
    for (const int64_t chunk : {0, 1, 2, 3}) {
      at::Tensor leaf = h.clone().set_requires_grad(true);
      const kernels::LinearDistillResult result =
          kernels::linear_distill(leaf, weight, {.heads = {{teacher_h, teacher_w}}, .places_N = places},
                                  labels, {{c.loss, 0.5}}, chunk);
      result.sum.backward();
      EXPECT_NEAR(result.parts.at(0).item<double>(), expected, 32 * kEpsilon * expected) << name(c);
      EXPECT_NEAR(result.sum.item<double>(), 0.5 * expected, 32 * kEpsilon * expected) << name(c);
      EXPECT_EQ(leaf.grad()[1].abs().max().item<double>(), 0.0) << name(c);
      EXPECT_EQ(leaf.grad()[3].abs().max().item<double>(), 0.0) << name(c);
      EXPECT_GT(leaf.grad()[2].abs().max().item<double>(), 0.0) << name(c);
    }
  }
}

// What only one loss promises, in numbers: its direction. Student (.5, .5), teacher (.9, .1), by hand.
TEST(Losses, KnownValuesTellTheDirection) {
  const auto logits = [](double a, double b) {
    return at::tensor({std::log(a), std::log(b)}, at::kDouble).unsqueeze(0);
  };
  const auto kl = [](double a, double b) { return a * std::log(a / b); };
  const double forward = kl(.9, .5) + kl(.1, .5), reverse = kl(.5, .9) + kl(.5, .1);
  const std::map<std::string, std::pair<LossOptions, double>> known = {
      {"forward_kl", {{}, forward}},
      {"reverse_kl", {{}, reverse}},
      // m = .25 p + .75 q = (.6, .4)
      {"jsd", {{.beta = .25}, .25 * (kl(.9, .6) + kl(.1, .4)) + .75 * (kl(.5, .6) + kl(.5, .4))}},
      {"skew_forward_kl", {{.alpha = .25}, kl(.9, .6) + kl(.1, .4)}},
      // m = .75 p + .25 q = (.8, .2)
      {"skew_reverse_kl", {{.alpha = .25}, kl(.5, .8) + kl(.5, .2)}},
      {"total_variation", {{}, .4}},
      // half of the teacher is its first id, half of |p - q| lies there
      {"adaptive_kl", {{}, .5 * forward + .5 * reverse}},
      // centred: teacher +-ln(9)/2, student 0
      {"logit_mse", {{}, std::pow(std::log(9.0) / 2, 2)}},
      {"top_k_drop", {{.k = 1}, -.9 * std::log(.5)}},
      {"top_k_renormalise", {{.k = 1}, -std::log(.5)}},
      {"top_k_ghost", {{.k = 1}, -std::log(.5)}},
      {"top_k_label", {{.k = 1}, -std::log(.5)}},
      {"sampled", {{}, -std::log(.5)}},
      {"cross_entropy", {{}, -std::log(.5)}}};
  for (const LossSpec& spec : losses()) {
    if (!spec.make) continue;
    ASSERT_TRUE(known.contains(spec.name)) << spec.name << " wants its value by hand in this table";
    const auto& [options, expected] = known.at(spec.name);
    at::Tensor none;
    const kernels::LogitRows rows{
        logits(.5, .5), logits(.9, .1), at::ones({1}, at::kLong), {}, at::ones({1}, at::kLong)};
    EXPECT_NEAR(spec.make(options)(rows, 1.0, none).item<double>(), expected, 1e-12) << spec.name;
  }
}

double at_parameters(const LossOptions& options) {
  at::Tensor none;
  return losses().at(options.fn).make(options)(sample_rows(3, 33, at::kDouble), 1.0, none).item<double>();
}

// The formula's limits, and what the ends are defined as.
TEST(Losses, JsdTendsToTheKlsAtItsEnds) {
  const double forward = at_parameters({.fn = "forward_kl"}), reverse = at_parameters({.fn = "reverse_kl"});
  EXPECT_NEAR(at_parameters({.fn = "jsd", .beta = 1e-5}) / 1e-5, forward, 1e-3 * forward);
  EXPECT_NEAR(at_parameters({.fn = "jsd", .beta = 1 - 1e-5}) / 1e-5, reverse, 1e-3 * reverse);
  EXPECT_EQ(at_parameters({.fn = "jsd", .beta = 0.0}), forward);
  EXPECT_EQ(at_parameters({.fn = "jsd", .beta = 1.0}), reverse);
  // One half is symmetric, and at most ln 2 a row.
  kernels::LogitRows rows = sample_rows(3, 33, at::kDouble);
  std::swap(rows.student_CV, rows.teacher_CV);
  at::Tensor none;
  const double half = at_parameters({.fn = "jsd", .beta = 0.5});
  EXPECT_NEAR(losses().at("jsd").make({.beta = 0.5})(rows, 1.0, none).item<double>(), half, 1e-12);
  EXPECT_LT(half, 3 * std::log(2.0));
}

TEST(Losses, SkewKlsTendToTheKls) {
  for (const char* direction : {"forward_kl", "reverse_kl"}) {
    const double kl = at_parameters({.fn = direction});
    EXPECT_NEAR(at_parameters({.fn = std::string("skew_") + direction, .alpha = 1e-5}), kl, 1e-3 * kl);
    EXPECT_LT(at_parameters({.fn = std::string("skew_") + direction, .alpha = 0.5}), 0.9 * kl);
  }
}

// At a temperature of a thousand, tempered forward KL is V / 2 of the logits' mean squared difference / V.
TEST(Losses, LogitMseIsTheLimitOfHotForwardKl) {
  EXPECT_NEAR(at_parameters({.fn = "forward_kl", .temperature = 1000.0}),
              0.5 * at_parameters({.fn = "logit_mse"}), 2e-2);
}

// Labels of all ids are the whole distribution.
TEST(Losses, AllIdsAreTheWholeDistribution) {
  const kernels::LogitRows rows = sample_rows(3, 33, at::kDouble);
  const auto slope = [&](const LossOptions& options) {
    return gradient({options, nullptr, losses().at(options.fn).make(options)}, rows);
  };
  const at::Tensor whole = slope({.fn = "forward_kl", .temperature = 1.5});
  for (const char* fn : {"top_k_drop", "top_k_renormalise", "top_k_ghost", "top_k_label"})
    EXPECT_LT(relative_error(slope({.fn = fn, .temperature = 1.5, .k = 40}), whole), 1e-12) << fn;
}

// E[labels] = p: the mean gradient over many draws is forward KL's. 4000 draws of 1 leave an error of
// sqrt(p / 4000) a place; 33 * 3 of them stay below 5 of it.
TEST(Losses, SampledLabelsHaveForwardKlsGradientOnAverage) {
  const kernels::LogitRows rows = sample_rows(3, 33, at::kDouble);
  const auto slope = [&](const LossOptions& options) {
    return gradient({options, nullptr, losses().at(options.fn).make(options)}, rows);
  };
  const at::Tensor p = at::softmax(rows.teacher_CV, 1);
  const at::Tensor error = slope({.fn = "sampled", .draws = 4000}) - slope({.fn = "forward_kl"});
  EXPECT_LT((error.abs() / (p * (1 - p) / 4000).sqrt()).max().item<double>(), 5.0);
  EXPECT_GT(error.abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace retort::distill
