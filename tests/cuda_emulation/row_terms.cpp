#include "tests/cuda_emulation/row_terms.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/divergences.h"
#include "kernels/linear_loss.h"
#include "kernels/row_losses.h"
#include "kernels/sparse_losses.h"

namespace retort::testing {

using kernels::Divergence;
using kernels::cuda::Ops;
using kernels::cuda::SparseSignal;

namespace {

const char* name_of(RowLossKind kind) {
  constexpr const char* kNames[] = {"cross_entropy",   "forward_kl",      "reverse_kl",      "jsd",
                                    "skew_forward_kl", "skew_reverse_kl", "total_variation", "adaptive_kl",
                                    "logit_mse",       "labels"};
  RETORT_ASSERT(static_cast<size_t>(kind) < std::size(kNames));
  return kNames[static_cast<size_t>(kind)];
}

kernels::RowLoss plain_of(const RowLossTerm& term, at::ScalarType dtype) {
  const auto divergence = [&](Divergence kind) {
    return kernels::divergence_rows(kind, term.temperature, term.mix);
  };
  switch (term.kind) {
    case RowLossKind::kCrossEntropy:
      return kernels::cross_entropy_rows();
    case RowLossKind::kForwardKl:
      return kernels::forward_kl_rows(term.temperature);
    case RowLossKind::kReverseKl:
      return divergence(Divergence::kReverseKl);
    case RowLossKind::kJsd:
      return divergence(Divergence::kJsd);
    case RowLossKind::kSkewForwardKl:
      return divergence(Divergence::kSkewForwardKl);
    case RowLossKind::kSkewReverseKl:
      return divergence(Divergence::kSkewReverseKl);
    case RowLossKind::kTotalVariation:
      return divergence(Divergence::kTotalVariation);
    case RowLossKind::kAdaptiveKl:
      return divergence(Divergence::kAdaptiveKl);
    case RowLossKind::kLogitMse:
      return kernels::logit_mse_rows();
    case RowLossKind::kLabels:
      break;
  }
  const SparseSignal& sparse = term.sparse;
  const kernels::SparseLabels labels{sparse.ids_CK, sparse.weights_CK.to(dtype),
                                     sparse.rest_C.defined() ? sparse.rest_C.to(dtype) : at::Tensor()};
  return kernels::sparse_rows([labels](const kernels::LogitRows&) { return labels; }, term.temperature);
}

// The same of these rows.
SparseSignal of_rows(const SparseSignal& sparse, const at::Tensor& rows) {
  const auto part = [&](const at::Tensor& x) { return x.defined() ? x.index_select(0, rows) : x; };
  return {part(sparse.ids_CK), part(sparse.weights_CK), part(sparse.rest_C)};
}

}  // namespace

SparseSignal on_device(const SparseSignal& sparse, const at::Device& device) {
  const auto f32 = [&](const at::Tensor& x) { return x.defined() ? placed(x.to(at::kFloat), device) : x; };
  return {sparse.ids_CK.defined() ? placed(sparse.ids_CK, device) : at::Tensor(), f32(sparse.weights_CK),
          f32(sparse.rest_C)};
}

LogitProblem logit_problem(int64_t rows, int64_t vocabulary, int64_t common) {
  return {normal({rows, vocabulary}, 1, 2.0), normal({rows, common}, 2, 2.0),
          random_labels(rows, vocabulary, 7, 3)};
}

SparseSignal sparse_signal(int64_t rows, int64_t common, int64_t k, bool rest, uint64_t seed) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor scores = at::rand({rows, common}, generator, at::kDouble);
  SparseSignal out;
  out.ids_CK = std::get<1>(scores.topk(k, 1));
  const at::Tensor weights = at::rand({rows, k}, generator, at::kDouble);
  out.weights_CK = weights / weights.sum(1, true) * (rest ? 0.75 : 1.0);
  if (k > 1) out.weights_CK.select(1, k - 1).zero_(), out.ids_CK.select(1, k - 1).zero_();
  out.weights_CK = out.weights_CK.to(at::kFloat).to(at::kDouble);
  if (rest) out.rest_C = 1.0 - out.weights_CK.sum(1);
  return out;
}

Tensors plain_rows(const LogitProblem& problem, const RowTerms& terms, at::ScalarType dtype) {
  // Whatever has fused loops takes no columns.
  const auto unfused = [&](const at::Tensor& x) { return x.to(dtype).t().contiguous().t(); };
  kernels::LogitRows rows{unfused(problem.student_NV), unfused(problem.teacher_NU), problem.labels_N};
  rows.vocabulary = problem.teacher_NU.size(1);
  at::Tensor gradient = at::zeros_like(rows.student_CV);
  Tensors out;
  for (const RowLossTerm& term : terms)
    out.push_back(plain_of(term, dtype)(rows, term.weight, gradient).to(dtype));
  out.push_back(gradient);
  return out;
}

std::string name_of(const RowTerms& terms) {
  std::string out;
  for (const RowLossTerm& term : terms)
    out += fmt::format("{}{} T {} of {}{}{}", out.empty() ? "" : ", ", term.weight, term.temperature,
                       name_of(term.kind),
                       term.sparse.ids_CK.defined() ? fmt::format(" {}", term.sparse.ids_CK.size(1)) : "",
                       term.sparse.rest_C.defined() ? " and a rest" : "");
  return out;
}

void expect_rows(const LogitProblem& problem, const RowTerms& terms, at::ScalarType dtype) {
  const at::Tensor &labels = problem.labels_N,
                   valid = (labels != kernels::kIgnoredLabel).nonzero().view({-1}),
                   ignored = (labels == kernels::kIgnoredLabel).nonzero().view({-1});
  const auto of_valid = [&](const at::Tensor& x) { return x.index_select(0, valid); };
  const LogitProblem kept{of_valid(problem.student_NV), of_valid(problem.teacher_NU), of_valid(labels)};
  RowTerms of_kept = terms;
  const bool two = std::count_if(terms.begin(), terms.end(), [](const RowLossTerm& term) {
                     return term.kind != RowLossKind::kCrossEntropy;
                   }) > 1;
  double largest = 1.0;
  for (RowLossTerm& term : of_kept) {
    term.sparse = of_rows(term.sparse, valid);
    largest = std::max(largest, term.temperature * term.temperature);
  }
  const int64_t common = problem.teacher_NU.size(1);
  const std::string what =
      fmt::format("{}, {} {}/{}", name_of(terms), toString(dtype), common, problem.student_NV.size(1));
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor z = placed(problem.student_NV.to(dtype), device),
                         t = placed(problem.teacher_NU.to(dtype), device), given = placed(labels, device);
        RowTerms there = terms;
        for (RowLossTerm& term : there) term.sparse = on_device(term.sparse, device);
        const at::Tensor values = ops.row_losses(z.clone(), t, common, given, there, false);
        const at::Tensor losses = ops.row_losses(z, t, common, given, there, true);
        EXPECT_TRUE(same_bits(losses, values)) << what;
        return {losses, z};
      },
      [&](const Tensors& rows) {
        const at::Tensor &losses = rows[0], &gradient = rows[1];
        EXPECT_EQ(losses.index_select(1, ignored).abs().sum().item<double>(), 0.0) << what;
        EXPECT_EQ(gradient.index_select(0, ignored).abs().sum().item<double>(), 0.0) << what;
        Tensors got, usual = plain_rows(kept, of_kept, at::kFloat);
        for (int64_t i = 0; i < losses.size(0); ++i)
          got.push_back(losses[i].to(at::kDouble).sum().to(at::kFloat));
        got.push_back(of_valid(gradient));
        usual.back() = usual.back().to(dtype);
        // Places cancel down to the sums of values, which are differences of logarithms as large as log V, times T^2. One
        // loss alone holds without an allowance for that.
        const double size = 2.0 * largest, in_f32 = dtype == at::kFloat ? size : 0.0;
        std::vector<double> sizes(got.size(), two ? largest * std::max(2.0, std::log(common)) : in_f32);
        sizes.back() = in_f32;
        if (!two) sizes[0] = 0.0;
        expect_no_worse(what, got, usual, plain_rows(kept, of_kept, at::kDouble), sizes);
      });
}

}  // namespace retort::testing
