#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "kernels/linear_loss.h"
#include "kernels/row_losses.h"
#include "kernels/sparse_losses.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::cuda::Ops;
using kernels::cuda::RowTerms;

struct Problem {
  at::Tensor student, labels;    // f64; i64
  kernels::SparseLabels sparse;  // weights and rest f64
  int64_t common;
};

// k ids a row that differ, of falling weights, the last one padding; with a rest all add up to 1.
Problem problem(int64_t rows, int64_t vocabulary, int64_t common, int64_t k, bool rest) {
  const at::Generator generator = at::detail::createCPUGenerator(3);
  Problem p{normal({rows, vocabulary}, 1, 2.0), random_labels(rows, vocabulary, 7, 3), {}, common};
  const at::Tensor scores = at::rand({rows, common}, generator, at::kDouble);
  p.sparse.ids_NK = std::get<1>(scores.topk(k, 1));
  const at::Tensor weights = at::rand({rows, k}, generator, at::kDouble);
  p.sparse.weights_NK = weights / weights.sum(1, true) * (rest ? 0.75 : 1.0);
  if (k > 1) p.sparse.weights_NK.select(1, k - 1).zero_(), p.sparse.ids_NK.select(1, k - 1).zero_();
  p.sparse.weights_NK = p.sparse.weights_NK.to(at::kFloat).to(at::kDouble);
  if (rest) p.sparse.rest_N = 1.0 - p.sparse.weights_NK.sum(1);
  return p;
}

Tensors plain(const Problem& p, const RowTerms& terms, at::ScalarType dtype) {
  kernels::LogitRows rows{p.student.to(dtype).t().contiguous().t(), {}, p.labels};
  rows.vocabulary = p.common;
  at::Tensor gradient = at::zeros_like(rows.student_CV);
  kernels::SparseLabels labels = p.sparse;
  labels.weights_NK = labels.weights_NK.to(dtype);
  if (labels.rest_N.defined()) labels.rest_N = labels.rest_N.to(dtype);
  Tensors out{
      kernels::sparse_cross_entropy(rows, labels, terms.temperature, terms.weight, gradient).to(dtype)};
  if (terms.cross_entropy != 0)
    out.push_back(kernels::cross_entropy_rows()(rows, terms.cross_entropy, gradient).to(dtype));
  out.push_back(gradient);
  return out;
}

void expect_sparse(const std::string& what, const Problem& all, const RowTerms& terms, at::ScalarType dtype) {
  const at::Tensor valid = (all.labels != kernels::kIgnoredLabel).nonzero().view({-1});
  const auto of_valid = [&](const at::Tensor& x) { return x.defined() ? x.index_select(0, valid) : x; };
  const Problem kept{
      of_valid(all.student),
      of_valid(all.labels),
      {of_valid(all.sparse.ids_NK), of_valid(all.sparse.weights_NK), of_valid(all.sparse.rest_N)},
      all.common};
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor z = placed(all.student.to(dtype), device);
        const auto f32 = [&](const at::Tensor& x) {
          return x.defined() ? placed(x.to(at::kFloat), device) : x;
        };
        const kernels::cuda::SparseSignal signal{placed(all.sparse.ids_NK, device),
                                                 f32(all.sparse.weights_NK), f32(all.sparse.rest_N)};
        const auto sums = ops.sparse_losses(z, signal, all.common, placed(all.labels, device), terms, true);
        return sums.cross_entropy_C.defined() ? Tensors{sums.loss_C, sums.cross_entropy_C, z}
                                              : Tensors{sums.loss_C, z};
      },
      [&](const Tensors& rows) {
        Tensors got, usual = plain(kept, terms, at::kFloat);
        for (size_t i = 0; i + 1 < rows.size(); ++i)
          got.push_back(of_valid(rows[i]).to(at::kDouble).sum().to(at::kFloat));
        got.push_back(of_valid(rows.back()));
        usual.back() = usual.back().to(dtype);
        expect_no_worse(what, got, usual, plain(kept, terms, at::kDouble),
                        2.0 * terms.temperature * terms.temperature);
        const at::Tensor ignored = (all.labels == kernels::kIgnoredLabel).nonzero().view({-1});
        for (const at::Tensor& x : rows)
          EXPECT_EQ(x.index_select(0, ignored).abs().sum().item<double>(), 0.0) << what;
      });
}

TEST(CudaSparseLosses, MatchFp64) {
  struct Shape {
    int64_t rows, vocabulary, common, k;
  };
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& s : {Shape{3, 3, 3, 2}, Shape{7, 33, 31, 1}, Shape{4, 1031, 1031, 50},
                           Shape{4, 1024, 1000, 300}, Shape{3, 8200, 8193, 64}})
      for (const bool rest : {false, true})
        for (const double cross_entropy : {0.0, 0.25}) {
          const RowTerms terms{
              .weight = 0.75, .temperature = rest ? 1.0 : 2.0, .cross_entropy = cross_entropy};
          expect_sparse(fmt::format("{} {}/{} k {} rest {} ce {}", toString(dtype), s.common, s.vocabulary,
                                    s.k, rest, cross_entropy),
                        problem(s.rows, s.vocabulary, s.common, s.k, rest), terms, dtype);
        }
}

// Draws with replacement: the same id several times is one id with the sum of its weights.
TEST(CudaSparseLosses, JoinTheSameIdTwice) {
  Problem p = problem(4, 100, 100, 6, false);
  p.sparse.ids_NK.select(1, 3).copy_(p.sparse.ids_NK.select(1, 1));
  p.sparse.ids_NK.select(1, 4).copy_(p.sparse.ids_NK.select(1, 1));
  expect_sparse("twice", p, {}, at::kFloat);
}

// A student that has left nothing for the rest: no gradient from it, and a finite value.
TEST(CudaSparseLosses, EndWhereNothingIsLeftOutside) {
  Problem p = problem(2, 40, 40, 3, true);
  for (int64_t row = 0; row < 2; ++row)
    p.student[row].index_fill_(0, p.sparse.ids_NK[row].slice(0, 0, 2), 60.0);
  expect_sparse("nothing left", p, {}, at::kFloat);
}

}  // namespace
}  // namespace retort::testing
