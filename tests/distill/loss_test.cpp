// Every test here walks the registry, so a new loss gets them with its row.
// C rows, V vocabulary.
#include "distill/loss.h"

#include "core/random.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

constexpr double kEpsilon = 1.0 / (1 << 23);  // f32

struct Case {
  LossOptions options;
  kernels::RowLoss loss;
  bool divergence;
};

std::vector<Case> all_losses() {
  std::vector<Case> cases;
  for (const LossSpec& spec : losses())
    for (const double temperature : {1.0, 2.5}) {
      const LossOptions options{.fn = spec.name, .temperature = temperature};
      cases.push_back({options, spec.make(options), spec.needs_teacher});
    }
  return cases;
}

std::string name(const Case& c) { return fmt::format("{} at T = {}", c.options.fn, c.options.temperature); }

kernels::LogitRows sample_rows(int64_t rows = 5, int64_t vocabulary = 7) {
  at::Tensor student = at::empty({rows, vocabulary}), teacher = at::empty({rows, vocabulary});
  Random(1, "test/student").fill_normal(student, 1.5);
  Random(2, "test/teacher").fill_normal(teacher, 1.5);
  return {student, teacher, at::arange(rows) % vocabulary};
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

TEST(Losses, GradientIsTheDerivativeOfTheValue) {
  // Fourth-order central differences with h = 1/16. Truncation is h^4 / 30 times a fifth derivative of order
  // one; the rest is the value's own rounding, a few ulp of its size, over h.
  const double h = 1.0 / 16;
  for (const Case& c : all_losses()) {
    const kernels::LogitRows rows = sample_rows(3);
    const at::Tensor g = gradient(c, rows);
    const double tolerance = h * h * h * h / 30 + 16 * kEpsilon * (1 + std::abs(value(c, rows))) * 1.5 / h;
    const auto shifted = [&](int64_t i, double by) {
      kernels::LogitRows moved = rows;
      moved.student_CV = rows.student_CV.clone();
      moved.student_CV.view(-1)[i] += by;
      return value(c, moved);
    };
    for (int64_t i = 0; i < g.numel(); ++i) {
      const double slope =
          (8 * (shifted(i, h) - shifted(i, -h)) - (shifted(i, 2 * h) - shifted(i, -2 * h))) / (12 * h);
      EXPECT_NEAR(g.view(-1)[i].item<double>(), slope, tolerance) << name(c) << ", logit " << i;
    }
    EXPECT_GT(g.abs().max().item<double>(), 100 * tolerance) << name(c) << ": a zero gradient would pass";
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

TEST(Losses, AddUpOverChunks) {
  for (const Case& c : all_losses()) {
    const kernels::LogitRows rows = sample_rows();
    const auto slice = [&](int64_t begin, int64_t end) {
      return kernels::LogitRows{rows.student_CV.slice(0, begin, end), rows.teacher_CV.slice(0, begin, end),
                                rows.labels_C.slice(0, begin, end)};
    };
    EXPECT_NEAR(value(c, slice(0, 2)) + value(c, slice(2, 5)), value(c, rows),
                16 * kEpsilon * std::abs(value(c, rows)))
        << name(c);
    const at::Tensor parts = at::cat({gradient(c, slice(0, 2)), gradient(c, slice(2, 5))});
    EXPECT_LT((parts - gradient(c, rows)).abs().max().item<double>(), 8 * kEpsilon) << name(c);
    EXPECT_EQ(value(c, slice(2, 2)), 0.0) << name(c) << ": no rows";
  }
}

TEST(Losses, DivergencesVanishOnlyWhereTeacherAndStudentAgree) {
  for (const Case& c : all_losses()) {
    if (!c.divergence) continue;
    kernels::LogitRows rows = sample_rows();
    EXPECT_GT(value(c, rows), 0.01) << name(c);
    rows.teacher_CV = rows.student_CV + 2.0;  // the same softmax
    const double size = c.options.temperature * c.options.temperature * 5;
    EXPECT_NEAR(value(c, rows), 0.0, 16 * kEpsilon * size) << name(c);
    EXPECT_LT(gradient(c, rows).abs().max().item<double>(), 16 * kEpsilon * size) << name(c);
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
  const at::Tensor valid = labels.ne(kernels::kIgnoredLabel).nonzero().flatten();
  for (const Case& c : all_losses()) {
    at::Tensor no_gradient;
    const double expected =
        c.loss({h.index_select(0, valid).matmul(weight.t()),
                teacher_h.index_select(0, valid).matmul(teacher_w.t()), labels.index_select(0, valid)},
               1.0, no_gradient)
            .item<double>();
    for (const int64_t chunk : {0, 1, 2, 3}) {
      at::Tensor leaf = h.clone().set_requires_grad(true);
      const kernels::LinearDistillResult result = kernels::linear_distill(
          leaf, weight, {.heads = {{teacher_h, teacher_w}}}, labels, {{c.loss, 0.5}}, {.chunk_rows = chunk});
      result.sum.backward();
      EXPECT_NEAR(result.parts.at(0).item<double>(), expected, 32 * kEpsilon * expected) << name(c);
      EXPECT_NEAR(result.sum.item<double>(), 0.5 * expected, 32 * kEpsilon * expected) << name(c);
      EXPECT_EQ(leaf.grad()[1].abs().max().item<double>(), 0.0) << name(c);
      EXPECT_EQ(leaf.grad()[3].abs().max().item<double>(), 0.0) << name(c);
      EXPECT_GT(leaf.grad()[2].abs().max().item<double>(), 0.0) << name(c);
    }
  }
}

}  // namespace
}  // namespace retort::distill
