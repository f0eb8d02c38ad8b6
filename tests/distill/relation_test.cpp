#include "distill/relation.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "core/random.h"
#include "tests/testing.h"

namespace retort::distill {
namespace {

at::Tensor random(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor out = at::empty(shape);
  Random(seed, "test/relation").fill_normal(out, 1.0);
  return out.to(at::kDouble);
}

// The definition, one position at a time.
at::Tensor definition(const at::Tensor& student, const at::Tensor& teacher, int64_t heads,
                      const HiddenRows& rows) {
  const int64_t B = student.size(0), T = student.size(1);
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t) {
      if (!rows.valid_BT[b][t].item<bool>()) continue;
      std::vector<int64_t> seen;
      for (int64_t j = 0; j <= t; ++j)
        if (!rows.document_BT.defined() || at::equal(rows.document_BT[b][j], rows.document_BT[b][t]))
          seen.push_back(j);
      const at::Tensor ids = at::tensor(seen, at::kLong);
      for (int64_t r = 0; r < heads; ++r) {
        const auto log_a = [&](const at::Tensor& x_BTHK) {
          const at::Tensor x = x_BTHK[b].flatten(1);
          const int64_t width = x.size(1) / heads;
          const at::Tensor own = x.narrow(1, r * width, width);
          return at::log_softmax(own.index_select(0, ids).matmul(own[t]) / std::sqrt(double(width)), 0);
        };
        const at::Tensor s = log_a(student), of_t = log_a(teacher);
        sum = sum + (of_t.exp() * (of_t - s)).sum() / static_cast<double>(heads);
      }
    }
  return sum;
}

TEST(Relation, AgreesWithItsDefinitionWhateverTheHeads) {
  const at::Tensor teacher = random({2, 5, 3, 8}, 2);  // width 24
  HiddenRows rows{at::ones({2, 5}, at::kBool), {}};
  rows.valid_BT[0][2] = false, rows.valid_BT[1][4] = false;
  for (const bool documents : {false, true})
    for (const int64_t heads : {1, 2, 4}) {
      if (documents) rows.document_BT = at::tensor({0, 0, 1, 1, 1, 0, 1, 1, 2, 2}, at::kLong).view({2, 5});
      const at::Tensor ours = random({2, 5, 2, 6}, 1).requires_grad_(true),  // width 12
          plain = ours.detach().clone().requires_grad_(true);
      const at::Tensor loss = relation_kl(ours, teacher, heads, rows);
      const at::Tensor expected = definition(plain, teacher, heads, rows);
      EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-12) << heads;
      EXPECT_GT(loss.item<double>(), 0.05);
      const at::Tensor g = torch::autograd::grad({3.0 * loss}, {ours})[0];
      const at::Tensor e = torch::autograd::grad({3.0 * expected}, {plain})[0];
      EXPECT_LT((g - e).abs().max().item<double>(), 1e-12) << heads;
    }
}

TEST(Relation, IsZeroForEqualRelations) {
  const HiddenRows rows{at::ones({2, 5}, at::kBool), {}};
  const at::Tensor x = random({2, 5, 2, 6}, 1).requires_grad_(true);
  const at::Tensor loss = relation_kl(x, x.detach(), 2, rows);
  EXPECT_NEAR(loss.item<double>(), 0.0, 1e-14);
  EXPECT_LT(torch::autograd::grad({loss}, {x})[0].abs().max().item<double>(), 1e-14);
}

// Heads one wide, so that the relations are products of two numbers, in which no library has a choice.
TEST(Relation, DoesNotDependOnThreads) {
  const HiddenRows rows{at::ones({1, 128}, at::kBool), {}};
  const at::Tensor student = random({1, 128, 8, 1}, 1).to(at::kFloat),
                   teacher = random({1, 128, 8, 1}, 2).to(at::kFloat);
  const int before = at::get_num_threads();
  const auto with_threads = [&](int threads) {
    at::set_num_threads(threads);
    const at::Tensor loss = relation_kl(student, teacher, 8, rows);
    at::set_num_threads(before);
    return loss;
  };
  const at::Tensor one = with_threads(1);
  for (const int threads : {2, 3, 5}) EXPECT_TRUE(testing::same_bits(one, with_threads(threads))) << threads;
}

TEST(Relation, HeadsMustDivideTheWidths) {
  const HiddenRows rows{at::ones({1, 3}, at::kBool), {}};
  EXPECT_THROW(relation_kl(random({1, 3, 2, 6}, 1), random({1, 3, 2, 8}, 2), 3, rows), ConfigError);
  EXPECT_THROW(relation_kl(random({1, 3, 2, 6}, 1), random({1, 3, 2, 6}, 2), 0, rows), ConfigError);
}

}  // namespace
}  // namespace retort::distill
