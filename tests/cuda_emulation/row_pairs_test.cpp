// Two losses on one row against the sum of their plain versions in f64: all pairs of what kernels/cuda/table.h lists.
#include <gtest/gtest.h>

#include "kernels/linear_loss.h"
#include "tests/cuda_emulation/row_terms.h"

namespace retort::testing {
namespace {

constexpr int64_t kRows = 3;

// Every loss on rows whose `common` columns are compared, labels with a rest and without one, as parts of a pair.
RowTerms all_losses(int64_t common, uint64_t seed) {
  RowTerms all;
  for (int kind = static_cast<int>(RowLossKind::kForwardKl); kind < static_cast<int>(RowLossKind::kLabels);
       ++kind)
    all.push_back({.kind = static_cast<RowLossKind>(kind), .mix = 0.3});
  for (const bool rest : {false, true})
    all.push_back({.kind = RowLossKind::kLabels, .sparse = sparse_signal(kRows, common, 9, rest, seed)});
  return all;
}

RowTerms pair_of(RowLossTerm one, RowLossTerm other, double temperature_of_other) {
  one.weight = 0.75, other.weight = -0.5;
  if (one.kind != RowLossKind::kLogitMse) one.temperature = 2.0;
  if (other.kind != RowLossKind::kLogitMse) other.temperature = temperature_of_other;
  return {one, other};
}

// At two temperatures and at one, cross-entropy beside one of them: before the two, or between.
void expect_pair(const LogitProblem& problem, const RowLossTerm& one, const RowLossTerm& other,
                 at::ScalarType dtype, bool beside_two_temperatures) {
  for (const bool two : {false, true}) {
    RowTerms terms = pair_of(one, other, two ? 1.0 : 2.0);
    if (two == beside_two_temperatures)
      terms.insert(terms.begin() + (two ? 0 : 1), {RowLossKind::kCrossEntropy, 0.25});
    expect_rows(problem, terms, dtype);
  }
}

TEST(CudaRowPairs, MatchFp64) {
  const LogitProblem problem = logit_problem(kRows, 131, 131);
  const RowTerms ones = all_losses(131, 3), others = all_losses(131, 4);
  for (size_t i = 0; i < ones.size(); ++i)
    for (size_t j = i; j < ones.size(); ++j) {
      expect_pair(problem, ones[i], others[j], at::kFloat, true);
      expect_pair(problem, ones[i], others[j], at::kBFloat16, false);
    }
}

// The other way round, and with columns that the teacher lacks.
TEST(CudaRowPairs, MatchFp64OverTheTokensInCommon) {
  const LogitProblem problem = logit_problem(kRows, 96, 72);
  const RowTerms ones = all_losses(72, 3), others = all_losses(72, 4);
  for (size_t i = 0; i < ones.size(); ++i)
    for (size_t j = 0; j <= i; ++j) {
      expect_pair(problem, ones[i], others[j], at::kFloat, false);
      expect_pair(problem, ones[i], others[j], at::kBFloat16, true);
    }
}

// Rows of the other number of threads, and of few columns.
TEST(CudaRowPairs, MatchFp64OnLongAndShortRows) {
  for (const auto& [vocabulary, common] : {std::pair<int64_t, int64_t>{8200, 8193}, {8200, 8200}, {12, 9}}) {
    const LogitProblem problem = logit_problem(kRows, vocabulary, common);
    const RowTerms all = all_losses(common, 3);
    for (size_t i = 0; i < all.size(); ++i)
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        RowTerms terms = pair_of(all[i], all[(i + 3) % all.size()], 1.0);
        terms.push_back({RowLossKind::kCrossEntropy, 0.25});
        expect_rows(problem, terms, dtype);
      }
  }
}

// Both are found as each is alone: of short rows, whose sums have one order, the values are the same bits. A GPU's compiler
// may contract products and sums in another way.
TEST(CudaRowPairs, HaveTheValuesOfEachAlone) {
  const LogitProblem problem = logit_problem(kRows, 70, 64);
  const RowTerms all = all_losses(64, 3);
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t j = 0; j < all.size(); ++j) {
      const RowTerms terms = pair_of(all[i], all[j], (i + j) % 2 == 0 ? 1.0 : 2.0);
      everywhere(
          name_of(terms),
          [&](const kernels::cuda::Ops& ops, const at::Device& device) -> Tensors {
            if (!device.is_cpu()) return {};
            const auto values = [&](const RowTerms& of) {
              RowTerms f32 = of;
              for (RowLossTerm& term : f32) term.sparse = on_device(term.sparse, device);
              return ops.row_losses(problem.student_NV.to(at::kFloat), problem.teacher_NU.to(at::kFloat), 64,
                                    problem.labels_N, f32, true);
            };
            const at::Tensor both = values(terms);
            for (const int64_t k : {0, 1})
              EXPECT_TRUE(same_bits(both[k], values({terms[static_cast<size_t>(k)]})[0])) << name_of(terms);
            return {both};
          },
          [](const Tensors&) {});
    }
}

// So many columns that the labels' map and the kernel's own shared memory need a request together, the map alone none.
TEST(CudaRowPairs, TakeAsMuchSharedMemoryAsTheyNeed) {
  constexpr int64_t kColumns = 390000;
  expect_rows(
      logit_problem(1, kColumns, kColumns),
      {{RowLossKind::kForwardKl}, {.kind = RowLossKind::kLabels, .sparse = sparse_signal(1, kColumns, 8, false)}},
      at::kBFloat16);
}

// A weight of 0, as a schedule may have it, changes no value.
TEST(CudaRowPairs, HaveValuesWithoutAWeight) {
  const LogitProblem problem = logit_problem(kRows, 70, 64);
  const RowTerms all = all_losses(64, 3);
  for (size_t i = 0; i < all.size(); ++i) {
    RowTerms terms = pair_of(all[i], all[(i + 1) % all.size()], 1.0);
    terms.push_back({RowLossKind::kCrossEntropy, 0.0});
    terms[0].weight = 0.0;
    expect_rows(problem, terms, at::kFloat);
    terms[1].weight = 0.0;
    expect_rows(problem, terms, at::kFloat);
  }
}

// Equal rows: no divergence, and no gradient of two.
TEST(CudaRowPairs, VanishWhereStudentAndTeacherAgree) {
  const at::Tensor z = normal({4, 131}, 1, 2.0).to(at::kFloat);
  RowTerms all = all_losses(131, 3);
  all.resize(all.size() - 2);  // a cross-entropy against labels has the labels' own entropy
  for (const RowLossTerm& one : all)
    for (const RowLossTerm& other : all) {
      const RowTerms terms = pair_of(one, other, 1.0);
      everywhere(
          name_of(terms),
          [&](const kernels::cuda::Ops& ops, const at::Device& device) -> Tensors {
            const at::Tensor student = placed(z, device);
            return {ops.row_losses(student, placed(z, device), 131, {}, terms, true), student};
          },
          [&](const Tensors& got) {
            EXPECT_LE(got[0].abs().max().item<double>(), 4e-6) << name_of(terms);
            EXPECT_LE(got[1].abs().max().item<double>(), 1e-6) << name_of(terms);
          });
    }
}

// Labels of both that share ids: each id's gradient is written once, with what all have to say.
TEST(CudaRowPairs, ShareIdsOfLabels) {
  const LogitProblem problem = logit_problem(kRows, 40, 33);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const bool rest : {false, true})
      for (const int64_t k : {2, 20, 32}) {  // of 33: the two must meet
        const RowTerms terms =
            pair_of({.kind = RowLossKind::kLabels, .sparse = sparse_signal(kRows, 33, 20, rest, 3)},
                    {.kind = RowLossKind::kLabels, .sparse = sparse_signal(kRows, 33, k, true, 4)}, 1.0);
        expect_rows(problem, terms, dtype);
        expect_rows(problem, {terms[0], {RowLossKind::kCrossEntropy, 0.25}, terms[1]}, dtype);
      }
}

}  // namespace
}  // namespace retort::testing
