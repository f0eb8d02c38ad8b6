// The losses on rows against the plain versions of kernels/row_losses.h and divergences.h in f64.
#include <gtest/gtest.h>

#include "kernels/divergences.h"
#include "kernels/linear_loss.h"
#include "kernels/row_losses.h"
#include "tests/cuda_emulation/providers.h"

namespace retort::testing {
namespace {

using kernels::Divergence;
using kernels::cuda::Ops;
using kernels::cuda::RowLoss;
using kernels::cuda::RowTerms;

struct Rows {
  int64_t count, vocabulary, common;
};
struct Kind {
  const char* name;
  RowLoss kind;
  double mix;
};
const std::vector<Kind> kKinds = {{"forward_kl", RowLoss::kForwardKl, 0},
                                  {"reverse_kl", RowLoss::kReverseKl, 0},
                                  {"jsd", RowLoss::kJsd, 0.3},
                                  {"skew_forward_kl", RowLoss::kSkewForwardKl, 0.1},
                                  {"skew_reverse_kl", RowLoss::kSkewReverseKl, 0.1},
                                  {"total_variation", RowLoss::kTotalVariation, 0},
                                  {"adaptive_kl", RowLoss::kAdaptiveKl, 0},
                                  {"logit_mse", RowLoss::kLogitMse, 0}};

kernels::RowLoss plain_of(const Kind& k, double temperature) {
  switch (k.kind) {
    case RowLoss::kForwardKl:
      return kernels::forward_kl_rows(temperature);
    case RowLoss::kReverseKl:
      return kernels::divergence_rows(Divergence::kReverseKl, temperature);
    case RowLoss::kJsd:
      return kernels::divergence_rows(Divergence::kJsd, temperature, k.mix);
    case RowLoss::kSkewForwardKl:
      return kernels::divergence_rows(Divergence::kSkewForwardKl, temperature, k.mix);
    case RowLoss::kSkewReverseKl:
      return kernels::divergence_rows(Divergence::kSkewReverseKl, temperature, k.mix);
    case RowLoss::kTotalVariation:
      return kernels::divergence_rows(Divergence::kTotalVariation, temperature);
    case RowLoss::kAdaptiveKl:
      return kernels::divergence_rows(Divergence::kAdaptiveKl, temperature);
    default:
      return kernels::logit_mse_rows();
  }
}

// Sums of both losses, and the gradient of their weighted sum, in `dtype`: plain, whatever has fused loops.
Tensors plain(const Kind* kind, const RowTerms& terms, const at::Tensor& student, const at::Tensor& teacher,
              const at::Tensor& labels, at::ScalarType dtype) {
  const auto unfused = [&](const at::Tensor& x) { return x.to(dtype).t().contiguous().t(); };
  kernels::LogitRows rows{unfused(student), kind ? unfused(teacher) : at::Tensor(), labels};
  rows.vocabulary = kind ? teacher.size(1) : 0;
  at::Tensor gradient = at::zeros_like(rows.student_CV);
  Tensors out;
  if (kind) out.push_back(plain_of(*kind, terms.temperature)(rows, terms.weight, gradient).to(dtype));
  if (terms.cross_entropy != 0)
    out.push_back(kernels::cross_entropy_rows()(rows, terms.cross_entropy, gradient).to(dtype));
  out.push_back(gradient);
  return out;
}

// Rows whose label is -100 are left out of the plain version, and must be zeros in ours.
void expect_rows(const Kind* kind, const RowTerms& terms, const Rows& shape, at::ScalarType dtype) {
  const at::Tensor student = normal({shape.count, shape.vocabulary}, 1, 2.0),
                   teacher = normal({shape.count, shape.common}, 2, 2.0);
  const at::Tensor labels = random_labels(shape.count, shape.vocabulary, 7, 3);
  const at::Tensor valid = (labels != kernels::kIgnoredLabel).nonzero().view({-1});
  const auto of_valid = [&](const at::Tensor& x) { return x.index_select(0, valid); };
  const auto reference = [&](at::ScalarType type) {
    return plain(kind, terms, of_valid(student), of_valid(teacher), of_valid(labels), type);
  };
  const std::string what =
      fmt::format("{} ce {} T {} {} {}/{}", kind ? kind->name : "cross_entropy", terms.cross_entropy,
                  terms.temperature, toString(dtype), shape.common, shape.vocabulary);
  everywhere(
      what,
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor z = placed(student.to(dtype), device), t = placed(teacher.to(dtype), device);
        const at::Tensor given = placed(labels, device);
        const auto value = ops.row_losses(z.clone(), kind ? t : at::Tensor(), given, terms, false);
        const auto sums = ops.row_losses(z, kind ? t : at::Tensor(), given, terms, true);
        Tensors out;
        for (const auto& [with, without] :
             {std::pair{sums.loss_C, value.loss_C}, std::pair{sums.cross_entropy_C, value.cross_entropy_C}}) {
          if (!with.defined()) continue;
          EXPECT_TRUE(same_bits(with, without)) << what;
          out.push_back(with);
        }
        out.push_back(z);
        return out;
      },
      [&](const Tensors& rows) {
        const at::Tensor ignored = (labels == kernels::kIgnoredLabel).nonzero().view({-1});
        for (const at::Tensor& x : rows)
          EXPECT_EQ(x.index_select(0, ignored).abs().sum().item<double>(), 0.0) << what;
        Tensors got, usual = reference(at::kFloat), exact = reference(at::kDouble);
        for (size_t i = 0; i + 1 < rows.size(); ++i)
          got.push_back(of_valid(rows[i]).to(at::kDouble).sum().to(at::kFloat));
        got.push_back(of_valid(rows.back()));
        usual.back() = usual.back().to(dtype);
        // Places cancel down to the sums of values.
        const double terms_size = 2.0 * std::max(1.0, terms.temperature * terms.temperature);
        expect_no_worse(what, got, usual, exact, dtype == at::kFloat ? terms_size : 0.0);
      });
}

// Rows of both numbers of threads; lengths whose rows begin at every place of a run; columns that the teacher lacks.
const std::vector<Rows> kRows = {{3, 3, 3},       {7, 31, 31},     {5, 32, 17},
                                 {9, 1031, 1031}, {4, 1024, 1000}, {3, 8200, 8193}};

TEST(CudaRowLosses, CrossEntropyMatchesFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Rows& shape : kRows) expect_rows(nullptr, {.cross_entropy = 1.0}, shape, dtype);
}

TEST(CudaRowLosses, DivergencesMatchFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Kind& kind : kKinds)
      for (const Rows& shape : kRows)
        expect_rows(&kind, {.kind = kind.kind, .weight = 0.75, .mix = kind.mix}, shape, dtype);
}

TEST(CudaRowLosses, DivergencesBesideCrossEntropyMatchFp64) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const Kind& kind : kKinds)
      for (const Rows& shape : {Rows{4, 1031, 1031}, Rows{3, 1024, 1000}})
        for (const double temperature : {1.0, 2.0})
          expect_rows(&kind,
                      {.kind = kind.kind,
                       .weight = 0.75,
                       .temperature = kind.kind == RowLoss::kLogitMse ? 1.0 : temperature,
                       .mix = kind.mix,
                       .cross_entropy = 0.25},
                      shape, dtype);
}

// Equal rows: no divergence and no gradient, to the last bit of the value for forward and reverse KL.
TEST(CudaRowLosses, VanishWhereStudentAndTeacherAgree) {
  const at::Tensor z = normal({4, 1031}, 1, 2.0).to(at::kFloat);
  for (const Kind& kind : kKinds)
    everywhere(
        kind.name,
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          const at::Tensor student = placed(z, device);
          const auto sums = ops.row_losses(student, placed(z, device), {},
                                           {.kind = kind.kind, .temperature = 1.5, .mix = kind.mix}, true);
          return {sums.loss_C, student};
        },
        [&](const Tensors& got) {
          EXPECT_LE(got[0].abs().max().item<double>(), 1e-6) << kind.name;
          EXPECT_LE(got[1].abs().max().item<double>(), 1e-6) << kind.name;
        });
}

// Masked ids have no probability, and a row with a logit that is no number shows it.
TEST(CudaRowLosses, KnowMaskedIdsAndBrokenLogits) {
  for (const Kind& kind : kKinds) {
    at::Tensor student = normal({3, 70}, 1).to(at::kFloat), teacher = normal({3, 70}, 2).to(at::kFloat);
    teacher.slice(1, 10, 40).fill_(-INFINITY);
    student[1][3] = NAN;
    teacher[2][50] = NAN;
    const at::Tensor labels = at::tensor({5, 6, 200}, at::kLong);
    everywhere(
        kind.name,
        [&](const Ops& ops, const at::Device& device) -> Tensors {
          const at::Tensor z = placed(student, device);
          const RowTerms terms{.kind = kind.kind, .mix = kind.mix, .cross_entropy = 1.0};
          const auto sums = ops.row_losses(z, placed(teacher, device), placed(labels, device), terms, true);
          return {sums.loss_C, sums.cross_entropy_C, z};
        },
        [&](const Tensors& got) {
          const at::Tensor finite = got[0].isfinite();
          EXPECT_TRUE(finite[0].item<bool>() && got[2][0].isfinite().all().item<bool>()) << kind.name;
          EXPECT_FALSE(finite[1].item<bool>()) << kind.name;
          EXPECT_FALSE(finite[2].item<bool>()) << kind.name;
          EXPECT_TRUE(got[1][0].isfinite().item<bool>()) << kind.name;
          EXPECT_TRUE(got[1][2].isnan().item<bool>()) << "a label that the vocabulary lacks";
        });
  }
}

// The f32 interface that keeps the logits and adds to a gradient.
TEST(CudaRowLosses, AddToAGradient) {
  const at::Tensor z = normal({5, 33}, 1).to(at::kFloat), before = normal({5, 33}, 2).to(at::kFloat);
  const at::Tensor labels = random_labels(5, 33, 7, 0);
  const RowTerms terms{.cross_entropy = 0.5};
  everywhere(
      "add",
      [&](const Ops& ops, const at::Device& device) -> Tensors {
        const at::Tensor logits = placed(z, device), gradient = placed(before, device);
        const auto sums = ops.add_row_losses(logits, {}, placed(labels, device), terms, gradient);
        EXPECT_TRUE(same_bits(logits.to(at::kCPU), z));
        return {sums.cross_entropy_C, gradient};
      },
      [&](const Tensors& got) {
        const Tensors want = plain(nullptr, terms, z, {}, labels, at::kDouble);
        EXPECT_NEAR(got[0].sum().item<double>(), want[0].item<double>(), 1e-5);
        EXPECT_LE(worst_error(got[1], want[1] + before.to(at::kDouble)), 1e-6);
      });
}

}  // namespace
}  // namespace retort::testing
