#include "kernels/linear_loss.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "kernels/reference.h"
#include "kernels/row_losses.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

at::Tensor plain_logits(const at::Tensor& h_ND, const at::Tensor& weight_VD, double softcap) {
  const at::Tensor logits = at::matmul(h_ND.to(weight_VD.scalar_type()), weight_VD.t());
  return softcap > 0 ? at::tanh(logits / softcap) * softcap : logits;
}

Operation ours_ce(const at::Tensor& labels, int64_t chunk_rows = 0, double softcap = 0.0) {
  return [=](const Tensors& t) { return linear_cross_entropy(t[0], {t[1], softcap}, labels, chunk_rows); };
}
// The sum comes back in f32 whatever the logits' dtype, as ours does.
Operation plain_ce(const at::Tensor& labels, double softcap = 0) {
  return
      [=](const Tensors& t) { return reference::cross_entropy(plain_logits(t[0], t[1], softcap), labels); };
}

TEST(LinearCrossEntropy, MatchesFp64OnOddShapes) {
  for (int64_t n : {1, 5, 123, 1025})
    for (int64_t d : {7, 64, 123})
      for (int64_t v : {3, 257, 1031}) {
        const at::Tensor labels = random_labels(n, v, 7, n > 1 ? 4 : 0);
        expect_as_good(fmt::format("ce {}x{}x{}", n, d, v), ours_ce(labels), plain_ce(labels),
                       {normal({n, d}, 1), normal({v, d}, 2, 0.3)});
      }
}

TEST(LinearCrossEntropy, MatchesFp64InBf16) {
  const at::Tensor labels = random_labels(123, 257, 7, 5);
  expect_as_good("bf16", ours_ce(labels, 50), plain_ce(labels),
                 {normal({123, 64}, 1), normal({257, 64}, 2, 0.3)}, at::kBFloat16);
}

// Labels of probability 0: the logits' gradients are 1 and -1. Over integers the weight's gradient is then an integer
// that f32 holds, made of chunks' sums that bf16 does not: it is rounded once, to its own dtype.
TEST(LinearCrossEntropy, RoundsAWeightsGradientOnce) {
  const at::Tensor integers = (normal({512, 65}, 1) * 100).round().clamp(-127, 127);
  integers.select(1, 0).fill_(127);
  const at::Tensor labels = at::ones({512}, at::kLong), sum = integers.sum(0),
                   weight = at::zeros({2, 65}, at::kBFloat16);
  weight.select(1, 0).copy_(at::tensor({1.0, -1.0}));
  const at::Tensor h = integers.to(at::kBFloat16), w = weight.requires_grad_(true);
  const at::Tensor of_loss = linear_cross_entropy(h, w, labels, 64),
                   of_terms = linear_distill(h, w, {}, labels, {{cross_entropy_rows(), 1.0}}, 64).sum;
  for (const at::Tensor& loss : {of_loss, of_terms})
    EXPECT_TRUE(same_bits(torch::autograd::grad({loss}, {w})[0], at::stack({sum, -sum}).to(at::kBFloat16)));
}

TEST(LinearCrossEntropy, KeepsEachGradientsOwnDtype) {
  const at::Tensor labels = random_labels(20, 31, 7);
  const at::Tensor h = normal({20, 8}, 1).to(at::kFloat).requires_grad_(true);
  const at::Tensor w = normal({31, 8}, 2).to(at::kBFloat16).requires_grad_(true);
  const Tensors gradients = torch::autograd::grad({linear_cross_entropy(h, w, labels)}, {h, w});
  EXPECT_EQ(gradients[0].scalar_type(), at::kFloat);
  EXPECT_EQ(gradients[1].scalar_type(), at::kBFloat16);
}

TEST(LinearCrossEntropy, IsTheSameForEveryChunkSize) {
  const int64_t n = 123;
  const at::Tensor labels = random_labels(n, 257, 7, 3);
  const Tensors inputs{normal({n, 64}, 1), normal({257, 64}, 2, 0.3)};
  for (int64_t chunk : {int64_t{1}, int64_t{7}, n, 10 * n})
    expect_as_good(fmt::format("chunk {}", chunk), ours_ce(labels, chunk), plain_ce(labels), inputs);
}

TEST(LinearCrossEntropy, RepeatsBitForBit) {
  const at::Tensor labels = random_labels(500, 1031, 7, 3);
  const Tensors inputs{normal({500, 64}, 1), normal({1031, 64}, 2, 0.3)};
  const Outcome first = run(ours_ce(labels), inputs, at::kFloat);
  for (int i = 0; i < 3; ++i) {
    const Outcome again = run(ours_ce(labels), inputs, at::kFloat);
    EXPECT_TRUE(same_bits(first.value, again.value));
    EXPECT_TRUE(same_bits(first.gradients[0], again.gradients[0]));
    EXPECT_TRUE(same_bits(first.gradients[1], again.gradients[1]));
  }
}

TEST(LinearCrossEntropy, AppliesTheSoftcap) {
  const at::Tensor labels = random_labels(123, 257, 7, 4);
  expect_as_good("softcap", ours_ce(labels, 50, 5.0), plain_ce(labels, 5.0),
                 {normal({123, 64}, 1), normal({257, 64}, 2)});
}

TEST(LinearCrossEntropy, IgnoredRowsHaveNoGradientAndNoLoss) {
  const at::Tensor h = normal({6, 8}, 1).to(at::kFloat), w = normal({9, 8}, 2).to(at::kFloat);
  const at::Tensor labels = at::tensor({-100, 3, -100, -100, 8, -100}, at::kLong);
  const Outcome all = run(ours_ce(labels), {h, w}, at::kFloat);
  const Outcome two = run(ours_ce(at::tensor({3, 8}, at::kLong)),
                          {h.index_select(0, at::tensor({1, 4}, at::kLong)), w}, at::kFloat);
  EXPECT_TRUE(same_bits(all.value, two.value));
  EXPECT_TRUE(same_bits(all.gradients[1], two.gradients[1]));
  EXPECT_EQ(all.gradients[0].index_select(0, at::tensor({0, 2, 3, 5}, at::kLong)).abs().max().item<float>(),
            0.f);
  const Outcome none = run(ours_ce(at::full({6}, kIgnoredLabel, at::kLong)), {h, w}, at::kFloat);
  EXPECT_EQ(none.value.item<float>(), 0.f);
  EXPECT_EQ(none.gradients[0].abs().max().item<float>() + none.gradients[1].abs().max().item<float>(), 0.f);
}

// The caller divides by its own count: the factor reaches both gradients, once.
TEST(LinearCrossEntropy, ScalesByTheOuterGradient) {
  const at::Tensor labels = random_labels(20, 31, 7);
  const Tensors inputs{normal({20, 8}, 1), normal({31, 8}, 2)};
  const Outcome whole = run(ours_ce(labels), inputs, at::kFloat);
  const Outcome part = run([&](const Tensors& t) { return ours_ce(labels)(t) / 16; }, inputs, at::kFloat);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(same_bits(whole.gradients[i] / 16, part.gradients[i]));
}

TEST(LinearCrossEntropy, GivesOnlyWhatIsWanted) {
  const at::Tensor labels = random_labels(20, 31, 7);
  const at::Tensor h = normal({20, 8}, 1).to(at::kFloat), w = normal({31, 8}, 2).to(at::kFloat);
  EXPECT_FALSE(linear_cross_entropy(h, w, labels).requires_grad());
  const at::Tensor leaf = h.clone().requires_grad_(true);
  const at::Tensor loss = linear_cross_entropy(leaf, w, labels);
  EXPECT_TRUE(same_bits(torch::autograd::grad({loss}, {leaf})[0],
                        run(ours_ce(labels), {h, w}, at::kFloat).gradients[0]));
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(linear_cross_entropy(leaf, w, labels).requires_grad());
}

TEST(LinearCrossEntropy, RefusesASecondBackward) {
  const at::Tensor h = normal({4, 8}, 1).to(at::kFloat).requires_grad_(true);
  const at::Tensor loss = linear_cross_entropy(h, normal({5, 8}, 2).to(at::kFloat), random_labels(4, 5, 3));
  torch::autograd::grad({loss}, {h}, {}, true);
  EXPECT_THROW(torch::autograd::grad({loss}, {h}), InternalError);
}

TEST(LinearCrossEntropy, NamesWrongInputs) {
  const at::Tensor h = at::zeros({4, 8}), w = at::zeros({5, 8});
  const at::Tensor labels = at::zeros({4}, at::kLong);
  EXPECT_THROW(linear_cross_entropy(h, at::zeros({5, 7}), labels), ShapeError);
  EXPECT_THROW(linear_cross_entropy(h, w, at::zeros({3}, at::kLong)), ShapeError);
  EXPECT_THROW(linear_cross_entropy(h, w, at::zeros({4})), ShapeError);
  EXPECT_THROW(linear_cross_entropy(h.to(at::kDouble), w, labels), ShapeError);
  EXPECT_THROW(linear_cross_entropy(h, w, at::full({4}, 5, at::kLong)), ShapeError);   // label beyond V
  EXPECT_THROW(linear_cross_entropy(h, w, at::full({4}, -1, at::kLong)), ShapeError);  // negative, not -100
}

// ---- A loss for each row

// A factor for each row, so that gradients show that it is applied.
Operation weighted(const Operation& losses, int64_t rows) {
  return [=](const Tensors& t) {
    const at::Tensor values = losses(t);
    const at::Tensor sum = (values * normal({rows}, 9).to(values.scalar_type())).sum();
    return t[0].scalar_type() == at::kDouble ? sum : sum.to(at::kFloat);
  };
}
Operation ours_of_tokens(const at::Tensor& labels, int64_t chunk_rows = 0, double softcap = 0.0) {
  return [=](const Tensors& t) { return linear_token_losses(t[0], {t[1], softcap}, labels, chunk_rows); };
}
Operation plain_of_tokens(const at::Tensor& labels, double softcap = 0.0) {
  return [=](const Tensors& t) {
    const at::Tensor z = plain_logits(t[0], t[1], softcap);
    const at::Tensor log_q = at::log_softmax(z.scalar_type() == at::kDouble ? z : z.to(at::kFloat), 1);
    const at::Tensor known = labels.clamp_min(0).unsqueeze(1);
    return at::where(labels != kIgnoredLabel, log_q.gather(1, known).squeeze(1).neg(),
                     at::zeros({}, log_q.options()));
  };
}

TEST(LinearTokenLosses, MatchFp64WithAFactorForEachRow) {
  for (const double softcap : {0.0, 5.0})
    for (const int64_t chunk : {0, 7}) {
      const at::Tensor labels = random_labels(123, 257, 7, 4);
      const std::string what = fmt::format("token losses, softcap {}, chunk {}", softcap, chunk);
      const Tensors inputs{normal({123, 64}, 1), normal({257, 64}, 2, 0.3)};
      expect_as_good(what, weighted(ours_of_tokens(labels, chunk, softcap), 123),
                     weighted(plain_of_tokens(labels, softcap), 123), inputs);
      expect_as_good(what + ", bf16", weighted(ours_of_tokens(labels, chunk, softcap), 123),
                     weighted(plain_of_tokens(labels, softcap), 123), inputs, at::kBFloat16);
    }
}

// One number for each row, and in their order the numbers of which linear_cross_entropy is the sum.
TEST(LinearTokenLosses, AddUpToTheCrossEntropy) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor h = normal({123, 64}, 1).to(dtype), w = normal({257, 64}, 2, 0.3).to(dtype);
    const at::Tensor labels = random_labels(123, 257, 7, 4);
    const at::Tensor losses = linear_token_losses(h, w, labels);
    EXPECT_EQ(losses.scalar_type(), at::kDouble);
    EXPECT_EQ(losses.sizes(), labels.sizes());
    EXPECT_TRUE(at::equal(losses.eq(0), labels.eq(kIgnoredLabel)));
    double sum = 0;
    for (int64_t row = 0; row < 123; ++row) sum += losses[row].item<double>();
    EXPECT_EQ(linear_cross_entropy(h, w, labels).item<float>(), static_cast<float>(sum));
  }
}

TEST(LinearTokenLosses, GiveOnlyWhatIsWanted) {
  const at::Tensor h = normal({6, 8}, 1).to(at::kFloat).requires_grad_(true);
  const at::Tensor w = normal({9, 8}, 2).to(at::kFloat);
  const at::Tensor labels = random_labels(6, 9, 3, 2);
  EXPECT_FALSE(linear_token_losses(h.detach(), w, labels).requires_grad());
  const at::Tensor losses = linear_token_losses(h, w, labels);
  const at::Tensor g = torch::autograd::grad({losses.sum()}, {h})[0];
  EXPECT_TRUE(same_bits(g, torch::autograd::grad({linear_cross_entropy(h, w, labels)}, {h})[0]));
  const at::Tensor none = at::full({6}, kIgnoredLabel, at::kLong);
  const at::Tensor of_none = torch::autograd::grad({linear_token_losses(h, w, none).sum()}, {h})[0];
  EXPECT_EQ(of_none.abs().max().item<float>(), 0.f);
  EXPECT_THROW(linear_token_losses(h, w, at::full({6}, 9, at::kLong)), ShapeError);
  EXPECT_THROW(linear_token_losses(h, w, at::zeros({5}, at::kLong)), ShapeError);
}

struct Teacher {
  at::Tensor hidden, weight;
  double softcap;
};

// Inputs: student hidden states and head. CE and tempered KL, with a teacher of another width.
Operation ours_distill(const at::Tensor& labels, const Teacher& teacher, double softcap, int64_t chunk) {
  return [=](const Tensors& t) {
    const TeacherSignal head{.heads = {{teacher.hidden.to(t[0].scalar_type()),
                                        {teacher.weight.to(t[0].scalar_type()), teacher.softcap}}}};
    const std::vector<LossTerm> terms{{cross_entropy_rows(), 0.25}, {forward_kl_rows(2.0), 0.75}};
    return linear_distill(t[0], {t[1], softcap}, head, labels, terms, chunk).sum;
  };
}
Operation plain_distill(const at::Tensor& labels, const Teacher& teacher, double softcap) {
  return [=](const Tensors& t) {
    const at::Tensor student = plain_logits(t[0], t[1], softcap);
    const at::Tensor other = plain_logits(teacher.hidden.to(t[0].scalar_type()),
                                          teacher.weight.to(t[0].scalar_type()), teacher.softcap);
    return 0.25 * reference::cross_entropy(student, labels) +
           0.75 * reference::forward_kl(student, other, labels, 2.0);
  };
}

TEST(LinearDistill, MatchesFp64OnOddShapes) {
  for (int64_t n : {1, 5, 123, 1025})
    for (int64_t d : {7, 64})
      for (int64_t v : {3, 257, 1031}) {
        const at::Tensor labels = random_labels(n, v, 7, n > 1 ? 4 : 0);
        const Teacher teacher{normal({n, 33}, 3), normal({v, 33}, 4, 0.3), 0.0};
        expect_as_good(fmt::format("distill {}x{}x{}", n, d, v), ours_distill(labels, teacher, 0, 0),
                       plain_distill(labels, teacher, 0), {normal({n, d}, 1), normal({v, d}, 2, 0.3)});
      }
}

TEST(LinearDistill, ChunksAndSoftcapsLikeTheWhole) {
  const at::Tensor labels = random_labels(123, 257, 7, 4);
  const Teacher teacher{normal({123, 33}, 3), normal({257, 33}, 4), 8.0};
  for (int64_t chunk : {1, 7, 123})
    expect_as_good(fmt::format("chunk {}", chunk), ours_distill(labels, teacher, 5.0, chunk),
                   plain_distill(labels, teacher, 5.0), {normal({123, 64}, 1), normal({257, 64}, 2)});
}

TEST(LinearDistill, MatchesFp64InBf16) {
  const at::Tensor labels = random_labels(123, 257, 7, 4);
  const Teacher teacher{normal({123, 33}, 3), normal({257, 33}, 4, 0.3), 0.0};
  expect_as_good("bf16", ours_distill(labels, teacher, 0, 50), plain_distill(labels, teacher, 0),
                 {normal({123, 64}, 1), normal({257, 64}, 2, 0.3)}, at::kBFloat16);
}

TEST(LinearDistill, ReportsUnweightedParts) {
  const at::Tensor labels = random_labels(50, 31, 7, 3);
  const at::Tensor h = normal({50, 8}, 1).to(at::kFloat), w = normal({31, 8}, 2).to(at::kFloat);
  const TeacherSignal teacher{
      .heads = {{normal({50, 5}, 3).to(at::kFloat), normal({31, 5}, 4).to(at::kFloat)}}};
  const LinearDistillResult out =
      linear_distill(h, w, teacher, labels, {{cross_entropy_rows(), 0.5}, {forward_kl_rows(1.0), 2.0}}, 7);
  ASSERT_EQ(out.parts.size(), 2u);
  EXPECT_NEAR(out.parts[0].item<double>(), linear_cross_entropy(h, w, labels).item<double>(), 1e-4);
  EXPECT_NEAR(out.sum.item<double>(), 0.5 * out.parts[0].item<double>() + 2.0 * out.parts[1].item<double>(),
              1e-4);
}

// A student that equals its teacher has no loss and no gradient.
TEST(LinearDistill, IsZeroForEqualLogits) {
  const at::Tensor labels = random_labels(20, 257, 7);
  const at::Tensor h = normal({20, 8}, 1), w = normal({257, 8}, 2);
  const Outcome out = run(
      [&](const Tensors& t) {
        return linear_distill(t[0], t[1], {.heads = {{t[0].detach(), t[1].detach()}}}, labels,
                              {{forward_kl_rows(1.5), 1.0}})
            .sum;
      },
      {h, w}, at::kFloat);
  EXPECT_EQ(out.value.item<float>(), 0.f);
  // q - p is left with the rounding of one product, T p <= 1.5, and is multiplied by W.
  const double bound = 257 * 1.5 * 0x1p-24 * w.abs().max().item<double>();
  EXPECT_LE(out.gradients[0].abs().max().item<double>(), bound);
}

TEST(LinearDistill, TakesAnyRowLoss) {
  // sum of squared logits: gradient 2 z.
  const RowLoss squares = [](const LogitRows& rows, double scale, at::Tensor& gradient_CV) {
    if (gradient_CV.defined()) gradient_CV.add_(rows.student_CV, 2.0 * scale);
    return rows.student_CV.square().sum();
  };
  const at::Tensor labels = random_labels(40, 31, 7, 5);
  expect_as_good(
      "squares",
      [&](const Tensors& t) {
        return linear_distill(t[0], t[1], {}, labels, {{squares, 3.0}}, 7).sum;
      },
      [&](const Tensors& t) {
        const at::Tensor rows = (labels != kIgnoredLabel).nonzero().view({-1});
        return 3.0 * plain_logits(t[0], t[1], 0).index_select(0, rows).square().sum();
      },
      {normal({40, 8}, 1), normal({31, 8}, 2)});
}

// Heads of 40 and 37 rows beside a student of 43: the 37 that all have are compared, the student's others get
// no gradient. Teachers are mixed as distributions, by weights that need not add up to 1.
TEST(LinearDistill, MixesTeachersOverTheTokensInCommon) {
  const at::Tensor labels = random_labels(41, 37, 7, 5),
                   rows = (labels != kIgnoredLabel).nonzero().view({-1});
  const at::Tensor h1 = normal({41, 9}, 3), w1 = normal({40, 9}, 4), h2 = normal({41, 11}, 5),
                   w2 = normal({37, 11}, 6), share = normal({41}, 7).abs() + 0.1;
  for (const bool by_row : {false, true}) {
    const at::Tensor a = by_row ? share : at::full({41}, 3.0, at::kDouble);
    const Operation ours = [&](const Tensors& t) {
      const auto dtype = t[0].scalar_type();
      TeacherSignal teacher{.heads = {{h1.to(dtype), {w1.to(dtype)}, 3.0}, {h2.to(dtype), {w2.to(dtype)}}}};
      if (by_row) teacher.heads[0].weight_N = share.to(at::kFloat);
      return linear_distill(t[0], t[1], teacher, labels, {{forward_kl_rows(2.0), 1.0}}, 7).sum;
    };
    const Operation plain = [&](const Tensors& t) {
      const auto dtype = t[0].scalar_type();
      const auto p = [&](const at::Tensor& h, const at::Tensor& w) {
        return at::softmax(plain_logits(h.to(dtype), w.to(dtype), 0).narrow(1, 0, 37), 1);
      };
      const at::Tensor weight = a.to(dtype).unsqueeze(1);
      const at::Tensor mixed = (p(h1, w1) * weight + p(h2, w2)) / (weight + 1);
      return reference::forward_kl(plain_logits(t[0], t[1], 0).narrow(1, 0, 37), mixed.log(), labels, 2.0);
    };
    expect_as_good("mixture", ours, plain, {normal({41, 8}, 1), normal({43, 8}, 2)});
    const Outcome out = run(ours, {normal({41, 8}, 1), normal({43, 8}, 2)}, at::kFloat);
    EXPECT_EQ(out.gradients[1].narrow(0, 37, 6).abs().max().item<float>(), 0.f);
  }
}

// A term sees exactly its chunk's valid rows of everything that the signal holds.
TEST(LinearDistill, CutsLabelsAndPlacesLikeTheRows) {
  const at::Tensor labels = random_labels(20, 31, 7, 4), ids = random_labels(40, 31, 8).view({20, 2}),
                   weights = normal({20, 2}, 9).to(at::kFloat), rest = normal({20}, 10).to(at::kFloat);
  const at::Tensor rows = (labels != kIgnoredLabel).nonzero().view({-1});
  std::vector<LogitRows> seen;
  const RowLoss look = [&](const LogitRows& chunk, double, at::Tensor&) {
    seen.push_back(chunk);
    return at::zeros({});
  };
  linear_distill(at::zeros({20, 8}), at::zeros({31, 8}),
                 {.labels = {ids, weights, rest}, .vocabulary = 29, .places_N = at::arange(20)}, labels,
                 {{look, 1.0}}, {4});
  ASSERT_EQ(seen.size(), 4u);
  const auto all = [&](const auto& of) {
    std::vector<at::Tensor> parts;
    for (const LogitRows& chunk : seen) parts.push_back(of(chunk));
    return at::cat(parts);
  };
  const auto picked = [&](const at::Tensor& x) { return x.index_select(0, rows); };
  EXPECT_TRUE(at::equal(all([](const LogitRows& r) { return r.sparse.ids_NK; }), picked(ids)));
  EXPECT_TRUE(at::equal(all([](const LogitRows& r) { return r.sparse.weights_NK; }), picked(weights)));
  EXPECT_TRUE(at::equal(all([](const LogitRows& r) { return r.sparse.rest_N; }), picked(rest)));
  EXPECT_TRUE(at::equal(all([](const LogitRows& r) { return r.places_C; }), rows));
  EXPECT_FALSE(seen[0].teacher_CV.defined());
  EXPECT_EQ(seen[0].common(seen[0].student_CV).size(1), 29);
}

TEST(LinearDistill, NamesAWrongTeacher) {
  const at::Tensor h = at::zeros({4, 8}), w = at::zeros({5, 8}), labels = at::zeros({4}, at::kLong);
  EXPECT_THROW(linear_distill(h, w, {.heads = {{at::zeros({3, 8}), w}}}, labels, {}), ShapeError);
  EXPECT_THROW(linear_distill(h, w, {.heads = {{h, at::zeros({6, 7})}}}, labels, {}), ShapeError);
  EXPECT_THROW(linear_distill(h, w, {}, labels, {{forward_kl_rows(1.0), 1.0}}), ShapeError);
  EXPECT_THROW(linear_distill(h, w, {.heads = {{h, w}}, .vocabulary = 6}, labels, {}), ShapeError);
  EXPECT_THROW(linear_distill(h, w, {.heads = {{h, w, 0.0}, {h, w, 0.0}}}, labels, {}), ShapeError);
  EXPECT_THROW(linear_distill(h, w, {.places_N = at::zeros({3}, at::kLong)}, labels, {}), ShapeError);
  const SparseLabels sparse{at::zeros({4, 2}, at::kLong), at::zeros({4, 3})};
  EXPECT_THROW(linear_distill(h, w, {.labels = sparse}, labels, {}), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
