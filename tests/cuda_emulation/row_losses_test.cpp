// The losses on rows against the plain versions of kernels/row_losses.h and divergences.h in f64.
#include <gtest/gtest.h>

#include "kernels/linear_loss.h"
#include "tests/cuda_emulation/row_terms.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;

const RowTerms kLosses = {{RowLossKind::kForwardKl},
                          {RowLossKind::kReverseKl},
                          {.kind = RowLossKind::kJsd, .mix = 0.3},
                          {.kind = RowLossKind::kSkewForwardKl, .mix = 0.1},
                          {.kind = RowLossKind::kSkewReverseKl, .mix = 0.1},
                          {RowLossKind::kTotalVariation},
                          {RowLossKind::kAdaptiveKl},
                          {RowLossKind::kLogitMse}};
RowLossTerm with(RowLossTerm loss, double weight, double temperature = 1.0) {
  loss.weight = weight;
  if (loss.kind != RowLossKind::kLogitMse) loss.temperature = temperature;
  return loss;
}
RowLossTerm cross_entropy(double weight) { return {RowLossKind::kCrossEntropy, weight}; }

struct Rows {
  int64_t count, vocabulary, common;
};
LogitProblem problem_of(const Rows& shape) {
  return logit_problem(shape.count, shape.vocabulary, shape.common);
}

// Rows of both numbers of threads; lengths whose rows begin at every place of a run; columns that the teacher lacks.
const std::vector<Rows> kRows = {{3, 3, 3},       {7, 31, 31},     {5, 32, 17},
                                 {9, 1031, 1031}, {4, 1024, 1000}, {3, 8200, 8193}};

TEST(CudaRowLosses, CrossEntropyMatchesFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Rows& shape : kRows) expect_rows(problem_of(shape), {cross_entropy(1.0)}, dtype);
}

TEST(CudaRowLosses, DivergencesMatchFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const RowLossTerm& loss : kLosses)
      for (const Rows& shape : kRows) expect_rows(problem_of(shape), {with(loss, 0.75)}, dtype);
}

TEST(CudaRowLosses, DivergencesBesideCrossEntropyMatchFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const RowLossTerm& loss : kLosses)
      for (const Rows& shape : {Rows{4, 1031, 1031}, Rows{3, 1024, 1000}})
        for (const double temperature : {1.0, 2.0})
          expect_rows(problem_of(shape), {with(loss, 0.75, temperature), cross_entropy(0.25)}, dtype);
}

// A weight of 0, as a schedule may have it, has a value and no gradient.
TEST(CudaRowLosses, HaveValuesWithoutAWeight) {
  for (const RowLossTerm& loss : kLosses) {
    expect_rows(problem_of({4, 70, 64}), {with(loss, 0.75, 2.0), cross_entropy(0.0)}, at::kFloat);
    expect_rows(problem_of({4, 70, 64}), {cross_entropy(0.25), with(loss, 0.0)}, at::kFloat);
  }
}

// Equal rows: no divergence and no gradient, to the last bit of the value for forward and reverse KL.
TEST(CudaRowLosses, VanishWhereStudentAndTeacherAgree) {
  const at::Tensor z = normal({4, 1031}, 1, 2.0).to(at::kFloat);
  for (const RowLossTerm& loss : kLosses) {
    const RowTerms terms{with(loss, 1.0, 1.5)};
    everywhere(
        name_of(terms),
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          const at::Tensor student = placed(z, device);
          return {ops.row_losses(student, placed(z, device), 1031, {}, terms, true), student};
        },
        [&](const Tensors& got) {
          EXPECT_LE(got[0].abs().max().item<double>(), 1e-6) << name_of(terms);
          EXPECT_LE(got[1].abs().max().item<double>(), 1e-6) << name_of(terms);
        });
  }
}

// Masked ids have no probability, and a row with a logit that is no number shows it: by itself, and in the value of each
// of two losses.
TEST(CudaRowLosses, KnowMaskedIdsAndBrokenLogits) {
  std::vector<RowTerms> all;
  for (const RowLossTerm& loss : kLosses) {
    all.push_back({loss, cross_entropy(1.0)});
    for (const RowLossTerm& other : kLosses) all.push_back({loss, other, cross_entropy(1.0)});
  }
  at::Tensor student = normal({3, 70}, 1).to(at::kFloat), teacher = normal({3, 70}, 2).to(at::kFloat);
  teacher.slice(1, 10, 40).fill_(-INFINITY);
  student[1][3] = NAN;
  teacher[2][50] = NAN;
  const at::Tensor labels = at::tensor({5, 6, 200}, at::kLong);
  for (const RowTerms& terms : all)
    everywhere(
        name_of(terms),
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          const at::Tensor z = placed(student, device);
          return {ops.row_losses(z, placed(teacher, device), 70, placed(labels, device), terms, true), z};
        },
        [&](const Tensors& got) {
          const at::Tensor finite = got[0].isfinite();
          const int64_t losses = finite.size(0) - 1;
          EXPECT_TRUE(got[1][0].isfinite().all().item<bool>()) << name_of(terms);
          for (int64_t i = 0; i < losses; ++i) {
            EXPECT_TRUE(finite[i][0].item<bool>()) << name_of(terms);
            EXPECT_FALSE(finite[i][1].item<bool>()) << name_of(terms);
            EXPECT_FALSE(finite[i][2].item<bool>()) << name_of(terms);
          }
          EXPECT_TRUE(finite[losses][0].item<bool>()) << name_of(terms);
          EXPECT_TRUE(got[0][losses][2].isnan().item<bool>()) << "a label that the vocabulary lacks";
        });
}

// The interface that keeps the logits and adds to a gradient.
TEST(CudaRowLosses, AddToAGradient) {
  const LogitProblem problem{normal({5, 33}, 1), normal({5, 33}, 3), random_labels(5, 33, 7, 0)};
  const at::Tensor z = problem.student_NV.to(at::kFloat), before = normal({5, 33}, 2).to(at::kFloat);
  const RowTerms terms{cross_entropy(0.5)};
  everywhere(
      "add",
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor logits = placed(z, device), gradient = placed(before, device);
        const at::Tensor losses =
            ops.add_row_losses(logits, {}, 33, placed(problem.labels_N, device), terms, gradient);
        EXPECT_TRUE(same_bits(logits.to(at::kCPU), z));
        return {losses, gradient};
      },
      [&](const Tensors& got) {
        const Tensors want = plain_rows(problem, terms, at::kDouble);
        EXPECT_NEAR(got[0].sum().item<double>(), want[0].item<double>(), 1e-5);
        EXPECT_LE(worst_error(got[1], want[1] + before.to(at::kDouble)), 1e-6);
      });
}

}  // namespace
}  // namespace retort::testing
