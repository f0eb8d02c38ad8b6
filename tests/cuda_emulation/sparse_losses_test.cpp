#include <gtest/gtest.h>

#include "tests/cuda_emulation/row_terms.h"

namespace retort::testing {
namespace {

RowLossTerm labels(const kernels::cuda::SparseSignal& sparse, double weight = 1.0, double temperature = 1.0) {
  return {.kind = RowLossKind::kLabels, .weight = weight, .temperature = temperature, .sparse = sparse};
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
        expect_rows(problem, {loss, {RowLossKind::kCrossEntropy, 0.25}}, dtype);
      }
}

// Draws with replacement: the same id several times is one id with the sum of its weights.
TEST(CudaSparseLosses, JoinTheSameIdTwice) {
  kernels::cuda::SparseSignal sparse = sparse_signal(4, 100, 6, false);
  sparse.ids_CK.select(1, 3).copy_(sparse.ids_CK.select(1, 1));
  sparse.ids_CK.select(1, 4).copy_(sparse.ids_CK.select(1, 1));
  expect_rows(logit_problem(4, 100, 100), {labels(sparse)}, at::kFloat);
  expect_rows(logit_problem(4, 100, 100), {{RowLossKind::kForwardKl}, labels(sparse, 0.5, 2.0)}, at::kFloat);
}

// A student that has left nothing for the rest: no gradient from it, and a finite value.
TEST(CudaSparseLosses, EndWhereNothingIsLeftOutside) {
  const kernels::cuda::SparseSignal sparse = sparse_signal(2, 40, 3, true);
  LogitProblem problem = logit_problem(2, 40, 40);
  for (int64_t row = 0; row < 2; ++row)
    problem.student_NV[row].index_fill_(0, sparse.ids_CK[row].slice(0, 0, 2), 60.0);
  expect_rows(problem, {labels(sparse)}, at::kFloat);
  expect_rows(problem, {labels(sparse), {RowLossKind::kTotalVariation}}, at::kFloat);
}

// What the CPU refuses has no number here, and nothing else is touched: neither the map nor another row, nor the gradient of
// other places.
TEST(CudaSparseLosses, AnIdOutsideOfTheColumnsIsNoLabel) {
  constexpr int64_t kColumns = 90;
  const LogitProblem problem = logit_problem(4, 100, kColumns);
  for (const int64_t id : {int64_t{-1}, kColumns, kColumns + 100, int64_t{1} << 40})
    for (const bool rest : {false, true}) {
      kernels::cuda::SparseSignal wrong = sparse_signal(4, kColumns, 6, rest),
                                  none = sparse_signal(4, kColumns, 6, rest);
      wrong.ids_CK[2][3] = id;
      none.ids_CK[2][3] = 0, none.weights_CK[2][3] = 0.0;
      for (const RowTerms& beside : {RowTerms{}, RowTerms{{RowLossKind::kForwardKl}}}) {
        const auto losses = [&](const kernels::cuda::SparseSignal& sparse) -> KernelRun {
          return [&, sparse](const kernels::cuda::Ops& ops, const at::Device& device) -> Tensors {
            RowTerms terms = beside;
            terms.push_back(labels(on_device(sparse, device)));
            const at::Tensor z = placed(problem.student_NV.to(at::kFloat), device);
            return {ops.row_losses(z, placed(problem.teacher_NU.to(at::kFloat), device), kColumns, {}, terms,
                                   true),
                    z};
          };
        };
        Tensors want;
        everywhere("no label", losses(none), [&](const Tensors& all) { want = all; });
        everywhere(fmt::format("id {} rest {}", id, rest), losses(wrong), [&](const Tensors& got) {
          const int64_t of_labels = std::ssize(beside);
          EXPECT_TRUE(got[0][of_labels][2].isnan().item<bool>());
          for (const int64_t row : {0, 1, 3}) {
            EXPECT_TRUE(same_bits(got[0].select(1, row), want[0].select(1, row)));
            EXPECT_TRUE(same_bits(got[1][row], want[1][row]));
          }
          for (int64_t other = 0; other < of_labels; ++other)
            EXPECT_TRUE(same_bits(got[0][other], want[0][other]));
          EXPECT_TRUE(got[1].isfinite().all().item<bool>());
        });
      }
    }
}

}  // namespace
}  // namespace retort::testing
