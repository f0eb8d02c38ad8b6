#include "models/linear.h"

#include <ATen/Parallel.h>

#include "core/random.h"
#include "tests/testing.h"

namespace retort::models {
namespace {

at::Tensor normal(at::IntArrayRef shape, std::string_view name) {
  at::Tensor out = at::empty(shape);
  Random(3, name).fill_normal(out, 1.0);
  return out;
}

TEST(Linear, MultipliesInTheWeightsDtype) {
  Parameters parameters;
  Linear linear{&parameters.add("w", {5, 7}, Role::kMatrix), &parameters.add("b", {5}, Role::kBias)};
  Parameter& w = parameters.at("w");
  w.master.copy_(normal({5, 7}, "w"));
  parameters.at("b").master.copy_(normal({5}, "b"));
  const at::Tensor x = normal({2, 3, 7}, "x");
  const at::Tensor exact =
      at::matmul(x.to(at::kDouble), w.master.to(at::kDouble).t()) + parameters.at("b").master;
  EXPECT_LT(testing::relative_error(linear(x), exact), 1e-6);

  w.working = w.master.to(at::kBFloat16).requires_grad_();
  const at::Tensor narrow = linear(x);
  EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
  // x, w, b and y each rounded by at most 2^-9 relative; a sum of 7 products and b of order 1
  EXPECT_LT(testing::relative_error(narrow, exact), 4 * 8 * 0x1p-9);
  narrow.to(at::kFloat).sum().backward();
  EXPECT_EQ(w.working.grad().scalar_type(), at::kBFloat16);
  EXPECT_EQ(parameters.at("b").working.grad().scalar_type(), at::kFloat);
}

// The same as the merged weight, in value and in every gradient.
TEST(Linear, AddsALowRankAdapter) {
  Parameters parameters;
  Linear linear{&parameters.add("w", {5, 7}, Role::kMatrix), &parameters.add("b", {5}, Role::kBias),
                &parameters.adapter("w")};
  parameters.join("w", {.a = &parameters.add("a", {2, 7}, Role::kLoraA),
                        .b = &parameters.add("c", {5, 2}, Role::kLoraB),
                        .scale = 1.5});
  std::vector<at::Tensor> exact;
  for (Parameter& p : parameters.unique()) {
    p.master.copy_(normal(p.master.sizes(), p.name));
    exact.push_back(p.master.to(at::kDouble).detach().requires_grad_());
  }
  const at::Tensor x = normal({3, 7}, "x"), weight = exact[0] + 1.5 * exact[3].matmul(exact[2]);
  const at::Tensor y = linear(x), expected = at::linear(x.to(at::kDouble), weight, exact[1]);
  EXPECT_LT(testing::relative_error(y, expected), 1e-6);
  y.square().sum().backward();
  expected.square().sum().backward();
  for (size_t i = 0; i < exact.size(); ++i)
    EXPECT_LT(testing::relative_error(parameters.unique()[i].working.grad(), exact[i].grad()), 1e-5) << i;
}

TEST(Linear, TheObserverSeesWhatIsMultiplied) {
  Parameters parameters;
  Parameter& w = parameters.add("w", {5, 7}, Role::kMatrix);
  w.master.copy_(normal({5, 7}, "w"));
  at::Tensor seen;
  w.observer = [&](const at::Tensor& x) { seen = x; };
  const at::Tensor x = normal({3, 7}, "x");
  Linear{&w, nullptr}(x);
  EXPECT_TRUE(testing::same_bits(seen, x));
}

// 4096 gradients of 1 + 2^-7 on one row: summed in bf16 the row would stop at 256.
TEST(Linear, LookUpSumsItsGradientInF32) {
  Parameters parameters;
  Parameter& embedding = parameters.add("e", {3, 2}, Role::kEmbedding);
  embedding.master.copy_(normal({3, 2}, "e"));
  embedding.working = embedding.master.to(at::kBFloat16).requires_grad_();
  const at::Tensor rows = look_up(embedding, at::ones({4096}, at::kLong));
  EXPECT_EQ(rows.scalar_type(), at::kFloat);
  rows.backward(at::full({4096, 2}, 1.0 + 0x1p-7));
  const at::Tensor gradient = embedding.working.grad().to(at::kFloat);
  EXPECT_EQ(gradient[1][0].item<float>(), 4128.0f);  // 4096 + 32, exact in bf16 (8 bits)
  EXPECT_EQ(gradient[0].abs().sum().item<float>(), 0.0f);
}

TEST(Linear, LookUpGradientDoesNotDependOnThreads) {
  Parameters parameters;
  Parameter& embedding = parameters.add("e", {4001, 9}, Role::kEmbedding);
  embedding.master.zero_();
  at::Tensor ids = at::empty({5000}, at::kLong);
  for (int64_t i = 0; i < 5000; ++i)
    ids.mutable_data_ptr<int64_t>()[i] =
        static_cast<int64_t>(Random(1, "ids").below(static_cast<uint64_t>(i), i % 2 ? 4001 : 3));
  const at::Tensor gradient = normal({5000, 9}, "g");
  const auto run = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    embedding.working.mutable_grad() = at::Tensor();
    look_up(embedding, ids).backward(gradient);
    at::set_num_threads(before);
    return embedding.working.grad().clone();
  };
  const at::Tensor one = run(1);
  EXPECT_TRUE(testing::same_bits(one, run(2)));
  EXPECT_TRUE(testing::same_bits(one, run(4)));
  EXPECT_LT(testing::relative_error(
                one, at::zeros({4001, 9}, at::kDouble).index_add(0, ids, gradient.to(at::kDouble))),
            2000 * 0x1p-24);
}

}  // namespace
}  // namespace retort::models
