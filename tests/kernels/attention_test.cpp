#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "kernels/reference.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

struct Shape {
  int64_t batch, queries, keys, heads, kv_heads, head_dim, window = 0;
  bool documents = false;
  std::string name() const {
    return fmt::format("B{} T{} S{} H{} G{} K{} window {} documents {}", batch, queries, keys, heads,
                       kv_heads, head_dim, window, documents);
  }
};

// Documents of uneven length, other ones in each row.
at::Tensor documents(int64_t batch, int64_t keys) {
  at::Tensor out = at::empty({batch, keys}, at::kLong);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t s = 0; s < keys; ++s) out[b][s] = (s * s + 3 * b * s) / (4 * keys);
  return out;
}

AttentionMask mask_of(const Shape& s) {
  return {s.window, s.documents ? documents(s.batch, s.keys) : at::Tensor()};
}

void expect_right(const Shape& s, at::ScalarType dtype = at::kFloat) {
  const AttentionMask mask = mask_of(s);
  const double scale = 1.0 / std::sqrt(static_cast<double>(s.head_dim));
  const at::Tensor q = normal({s.batch, s.queries, s.heads, s.head_dim}, 1);
  const at::Tensor k = normal({s.batch, s.keys, s.kv_heads, s.head_dim}, 2), v = normal(k.sizes(), 3);
  // dS = P (dP - delta), with dP = dy v^T: where one key holds all weight the two are equal and cancel.
  const double terms = scale * k.abs().max().item<double>() * v.square().sum(-1).max().item<double>();
  expect_as_good(
      s.name(), [&](const Tensors& t) { return attention(t[0], t[1], t[2], mask, scale); },
      [&](const Tensors& t) { return reference::attention(t[0], t[1], t[2], mask, scale); }, {q, k, v}, dtype,
      terms);
}

TEST(Attention, MatchesFp64WhenCausal) {
  for (int64_t t : {1, 5, 64, 65, 123, 257}) expect_right({2, t, t, 3, 3, 32});
  for (int64_t k : {1, 7, 16, 64, 80, 123, 128}) expect_right({1, 70, 70, 2, 2, k});
}

TEST(Attention, MatchesFp64WithGroupedQueries) {
  expect_right({2, 67, 67, 6, 2, 24});
  expect_right({1, 130, 130, 8, 1, 32});
}

TEST(Attention, MatchesFp64WithAWindow) {
  for (int64_t window : {1, 2, 63, 64, 100, 200}) expect_right({1, 150, 150, 4, 2, 16, window});
}

TEST(Attention, MatchesFp64WithDocuments) {
  expect_right({3, 131, 131, 2, 2, 32, 0, true});
  expect_right({2, 200, 200, 4, 2, 16, 37, true});
}

TEST(Attention, MatchesFp64BehindACache) {
  expect_right({2, 1, 77, 4, 2, 32});
  expect_right({2, 1, 77, 4, 4, 32, 20});
  expect_right({2, 9, 77, 4, 2, 32});
  expect_right({1, 70, 200, 2, 1, 16, 50});
  expect_right({2, 33, 100, 2, 2, 16, 0, true});
}

TEST(Attention, MatchesFp64InBf16) {
  expect_right({2, 67, 67, 4, 2, 32}, at::kBFloat16);
  expect_right({1, 100, 100, 2, 2, 64, 30}, at::kBFloat16);
}

TEST(Attention, StandsLargeScores) {
  const at::Tensor q = normal({1, 80, 1, 8}, 1).to(at::kFloat) * 100,
                   k = normal({1, 80, 1, 8}, 2).to(at::kFloat) * 100;
  const at::Tensor v = normal({1, 80, 1, 8}, 3).to(at::kFloat);
  const Outcome out =
      run([](const Tensors& t) { return attention(t[0], t[1], t[2], {}, 1.0); }, {q, k, v}, at::kFloat);
  EXPECT_TRUE(out.value.isfinite().all().item<bool>());
  for (const at::Tensor& g : out.gradients) EXPECT_TRUE(g.isfinite().all().item<bool>());
}

// A later token changes nothing before it: what makes a causal model one.
TEST(Attention, NeverLooksAhead) {
  const at::Tensor q = normal({1, 90, 2, 16}, 1).to(at::kFloat), v = normal({1, 90, 2, 16}, 3).to(at::kFloat);
  at::Tensor k = normal({1, 90, 2, 16}, 2).to(at::kFloat);
  const at::Tensor before = attention(q, k, v, {}, 0.25);
  k.narrow(1, 60, 30).fill_(1e6);
  v.narrow(1, 60, 30).fill_(1e30);
  const at::Tensor after = attention(q, k, v, {}, 0.25);
  EXPECT_TRUE(same_bits(before.narrow(1, 0, 60), after.narrow(1, 0, 60)));
}

TEST(Attention, ShowsAKeyThatIsNoNumberToAllWhoSeeIt) {
  const at::Tensor q = normal({1, 90, 1, 16}, 1).to(at::kFloat), k = normal({1, 90, 1, 16}, 2).to(at::kFloat);
  for (int64_t place = 0; place < 90; ++place) {
    at::Tensor broken = k.clone();
    broken.select(1, place).fill_(NAN);
    const at::Tensor y = attention(q, broken, k, {}, 0.25);
    EXPECT_TRUE(at::isfinite(y.narrow(1, 0, place)).all().item<bool>()) << place;
    EXPECT_TRUE(at::isnan(y.narrow(1, place, 90 - place)).all().item<bool>()) << place;
  }
}

TEST(Attention, GivesTheSameBitsForAnyThreadCount) {
  const Tensors inputs{normal({2, 150, 4, 32}, 1), normal({2, 150, 2, 32}, 2), normal({2, 150, 2, 32}, 3)};
  expect_thread_independent([](const Tensors& t) { return attention(t[0], t[1], t[2], {}, 0.2); }, inputs);
}

TEST(Attention, NamesWrongShapes) {
  const at::Tensor q = at::zeros({1, 4, 3, 8}), k = at::zeros({1, 4, 2, 8});
  EXPECT_THROW(attention(q, k, k, {}, 1.0), ShapeError);                        // 3 heads over 2
  EXPECT_THROW(attention(k, k, at::zeros({1, 5, 2, 8}), {}, 1.0), ShapeError);  // keys and values differ
  EXPECT_THROW(attention(k, k.narrow(1, 0, 3), k.narrow(1, 0, 3), {}, 1.0),
               ShapeError);  // more queries than keys
  EXPECT_THROW(attention(k, k, k, {0, at::zeros({1, 3}, at::kLong)}, 1.0), ShapeError);
}

TEST(Attention, NamesLengthsThatAreNone) {
  const at::Tensor x = at::zeros({1, 4, 1, 8}), numbers = at::zeros({1, 4}, at::kLong);
  const DocumentLengths lengths = document_lengths(numbers);
  EXPECT_NO_THROW(attention(x, x, x, {0, numbers, lengths}, 1.0));
  EXPECT_THROW(attention(x, x, x, {0, {}, lengths}, 1.0), Error);
  EXPECT_THROW(attention(x, x, x, {0, numbers, {numbers.flatten(), 4}}, 1.0), Error);
  EXPECT_THROW(attention(x, x, x, {0, numbers, {lengths.cumulative.unsqueeze(0), 4}}, 1.0), ShapeError);
}

}  // namespace
}  // namespace retort::kernels
