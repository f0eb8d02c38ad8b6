#include <gtest/gtest.h>

#include "tests/cuda_emulation/row_terms.h"

namespace retort::testing {
namespace {

RowLossTerm labels(const kernels::cuda::SparseSignal& sparse, double weight = 1.0, double temperature = 1.0) {
  return {.kind = RowLoss::kLabels, .weight = weight, .temperature = temperature, .sparse = sparse};
}

TEST(CudaSparseLosses, MatchFp64) {
  struct Shape {
    int64_t rows, vocabulary, common, k;
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& s : {Shape{3, 3, 3, 2}, Shape{7, 33, 31, 1}, Shape{4, 1031, 1031, 50},
                           Shape{4, 1024, 1000, 300}, Shape{3, 8200, 8193, 64}})
      for (const bool rest : {false, true}) {
        const LogitProblem problem = logit_problem(s.rows, s.vocabulary, s.common);
        const RowLossTerm loss = labels(sparse_signal(s.rows, s.common, s.k, rest), 0.75, rest ? 1.0 : 2.0);
        expect_rows(problem, {loss}, dtype);
        expect_rows(problem, {loss, {RowLoss::kCrossEntropy, 0.25}}, dtype);
      }
}

// Draws with replacement: the same id several times is one id with the sum of its weights.
TEST(CudaSparseLosses, JoinTheSameIdTwice) {
  kernels::cuda::SparseSignal sparse = sparse_signal(4, 100, 6, false);
  sparse.ids_CK.select(1, 3).copy_(sparse.ids_CK.select(1, 1));
  sparse.ids_CK.select(1, 4).copy_(sparse.ids_CK.select(1, 1));
  expect_rows(logit_problem(4, 100, 100), {labels(sparse)}, at::kFloat);
  expect_rows(logit_problem(4, 100, 100), {{RowLoss::kForwardKl}, labels(sparse, 0.5, 2.0)}, at::kFloat);
}

// A student that has left nothing for the rest: no gradient from it, and a finite value.
TEST(CudaSparseLosses, EndWhereNothingIsLeftOutside) {
  const kernels::cuda::SparseSignal sparse = sparse_signal(2, 40, 3, true);
  LogitProblem problem = logit_problem(2, 40, 40);
  for (int64_t row = 0; row < 2; ++row)
    problem.student_NV[row].index_fill_(0, sparse.ids_CK[row].slice(0, 0, 2), 60.0);
  expect_rows(problem, {labels(sparse)}, at::kFloat);
  expect_rows(problem, {labels(sparse), {RowLoss::kTotalVariation}}, at::kFloat);
}

}  // namespace
}  // namespace retort::testing
