#include "kernels/sparse_losses.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "core/error.h"
#include "kernels/cpu/table.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

// The definition, by LibTorch's autograd; ids of a row differ where there is a rest.
at::Tensor definition(const at::Tensor& z, const SparseLabels& labels, double T) {
  const at::Tensor log_q = at::log_softmax(z / T, -1);
  at::Tensor sum = -(labels.weights_NK.to(z.scalar_type()) * log_q.gather(1, labels.ids_NK)).sum();
  if (labels.rest_N.defined()) {
    const at::Tensor of_labels =
        (log_q.gather(1, labels.ids_NK).exp() * (labels.weights_NK > 0).to(z.scalar_type())).sum(1);
    sum = sum - (labels.rest_N.to(z.scalar_type()) * at::log1p(-of_labels)).sum();
  }
  return T * T * sum;
}

// Four ids a row, of which row 1 has one as padding, and row 2 two.
SparseLabels sample_labels(int64_t v, bool with_rest) {
  SparseLabels labels{at::empty({5, 4}, at::kLong), normal({5, 4}, 3).abs().to(at::kFloat) / 8, {}};
  for (int64_t row = 0; row < 5; ++row)
    for (int64_t k = 0; k < 4; ++k) labels.ids_NK[row][k] = (row * 7 + k * 3) % v;
  const auto pad = [&](int64_t row, int64_t k) {
    labels.ids_NK[row][k] = 0, labels.weights_NK[row][k] = 0.0;
  };
  pad(1, 3), pad(2, 2), pad(2, 3);
  if (with_rest) labels.rest_N = normal({5}, 4).abs().to(at::kFloat) / 4;
  return labels;
}

TEST(SparseCrossEntropy, AgreesWithItsDefinitionInDouble) {
  for (const bool with_rest : {false, true})
    for (const double T : {1.0, 2.5})
      for (const int64_t v : {13, 77, 1031}) {
        const at::Tensor z = normal({5, v}, 1, 2.0).to(at::kFloat);
        const SparseLabels labels = sample_labels(v, with_rest);
        const at::Tensor leaf = z.to(at::kDouble).requires_grad_(true);
        const at::Tensor exact = definition(leaf, labels, T);
        const at::Tensor slope = torch::autograd::grad({exact}, {leaf})[0];
        const std::string what = fmt::format("rest {} T {} V {}", with_rest, T, v);
        for (const cpu::Table* table : cpu::all_cpu_tables()) {
          at::Tensor loss = at::empty({5}, at::kDouble), gradient = at::zeros_like(z),
                     scratch = at::empty({v});
          table->sparse_cross_entropy(
              {static_cast<float>(T), 0.5f, 5, v, v, 4}, z.const_data_ptr<float>(),
              labels.ids_NK.const_data_ptr<int64_t>(), labels.weights_NK.const_data_ptr<float>(),
              with_rest ? labels.rest_N.const_data_ptr<float>() : nullptr, loss.mutable_data_ptr<double>(),
              gradient.mutable_data_ptr<float>(), scratch.mutable_data_ptr<float>());
          EXPECT_NEAR(loss.sum().item<double>(), exact.item<double>(), 32 * 0x1p-23 * exact.item<double>())
              << what << " " << table->name;
          EXPECT_LE(worst_error(gradient, 0.5 * slope), 32 * 0x1p-23 * T) << what << " " << table->name;
        }
        at::Tensor gradient = at::zeros({5, v}, at::kDouble);
        const at::Tensor plain = sparse_cross_entropy({z.to(at::kDouble), {}, {}}, labels, T, 0.5, gradient);
        EXPECT_NEAR(plain.item<double>(), exact.item<double>(), 1e-11) << what;
        EXPECT_LE(worst_error(gradient, 0.5 * slope), 1e-11) << what;
      }
}

// A student whose labels hold all mass: 1 - sum of q is 0 in f32, and the tail's own exponentials are not.
TEST(SparseCrossEntropy, TailKeepsItsDigits) {
  at::Tensor z = at::full({1, 100}, -12.0);
  z[0][7] = 5.0;
  const SparseLabels labels{at::full({1, 1}, 7, at::kLong), at::full({1, 1}, 0.9), at::full({1}, 0.1)};
  const double tail = 99 * std::exp(-17.0),
               expected = 0.9 * std::log1p(tail) + 0.1 * (std::log1p(tail) - std::log(tail));
  at::Tensor gradient = at::zeros_like(z);
  const at::Tensor loss = sparse_cross_entropy({z, {}, {}}, labels, 1.0, 1.0, gradient);
  EXPECT_NEAR(loss.item<double>(), expected, 1e-6);
  // Outside: q (1 - r / tail) = -r / 99, since all of the rest is to go there.
  EXPECT_NEAR(gradient[0][0].item<double>(), -0.1 / 99, 1e-6);
  EXPECT_NEAR(gradient[0][7].item<double>(), 1 / (1 + tail) - 0.9, 1e-6);
}

// Beyond rounding the tail's term is a constant: finite, without a gradient.
TEST(SparseCrossEntropy, TailBelowRoundingHasNoGradient) {
  at::Tensor z = at::full({1, 100}, -90.0);
  z[0][7] = 5.0;
  const SparseLabels labels{at::full({1, 1}, 7, at::kLong), at::full({1, 1}, 0.9), at::full({1}, 0.1)};
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    at::Tensor gradient = at::zeros({1, 100}, dtype);
    const at::Tensor loss = sparse_cross_entropy({z.to(dtype), {}, {}}, labels, 1.0, 1.0, gradient);
    EXPECT_NEAR(loss.item<double>(), 0.1 * 24 * std::log(2.0), 1e-6);
    EXPECT_LT(gradient.abs().max().item<double>(), 1e-6);
  }
}

TEST(SparseCrossEntropy, ComparesTheTokensInCommon) {
  const at::Tensor z = normal({5, 40}, 1).to(at::kFloat);
  for (const bool with_rest : {false, true}) {
    const SparseLabels labels = sample_labels(37, with_rest);
    at::Tensor cut = at::zeros({5, 37}), padded = at::zeros({5, 40});
    const at::Tensor alone =
        sparse_cross_entropy({z.narrow(1, 0, 37).contiguous(), {}, {}}, labels, 1.5, 1.0, cut);
    EXPECT_TRUE(at::equal(sparse_cross_entropy({z, {}, {}, {}, {}, 37}, labels, 1.5, 1.0, padded), alone));
    EXPECT_TRUE(at::equal(padded.narrow(1, 0, 37), cut));
    EXPECT_EQ(padded.narrow(1, 37, 3).abs().max().item<float>(), 0.0f);
  }
}

TEST(SparseCrossEntropy, NamesWrongLabels) {
  const at::Tensor z = at::zeros({2, 5});
  at::Tensor none;
  const auto loss = [&](const SparseLabels& labels) {
    return sparse_cross_entropy({z, {}, {}}, labels, 1.0, 1.0, none);
  };
  EXPECT_THROW(loss({}), ShapeError);
  EXPECT_THROW(loss({at::full({2, 3}, 5, at::kLong), at::ones({2, 3}), {}}), ShapeError);
  EXPECT_THROW(loss({at::full({2, 3}, -1, at::kLong), at::ones({2, 3}), {}}), ShapeError);
  EXPECT_THROW(loss({at::zeros({2, 3}, at::kLong), at::ones({2, 4}), {}}), ShapeError);
  EXPECT_THROW(loss({at::zeros({2, 3}, at::kLong), at::ones({2, 3}), at::ones({3})}), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
