#include "kernels/product.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <functional>

#include "core/error.h"
#include "kernels/cpu/elements.h"
#include "tests/kernels/gradcheck.h"
#include "tests/testing.h"

namespace retort::kernels {
namespace {

using namespace retort::testing;

at::Tensor bf16(at::IntArrayRef shape, uint64_t seed) { return normal(shape, seed).to(at::kBFloat16); }

// Rows or columns together in memory: the four layouts that the loops tell apart.
at::Tensor laid_out(const at::Tensor& x, bool columns) { return columns ? x.t().contiguous().t() : x; }

// Rounded once: within half a unit of bf16, 2^-8 of the exact sum at most, and what f32 loses before.
void expect_rounded(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
                    const std::string& what) {
  const at::Tensor da = a.to(at::kDouble), db = b.to(at::kDouble);
  at::Tensor exact = at::mm(da, db),
             bound = at::mm(da.abs(), db.abs()) * (static_cast<double>(a.size(1)) * 0x1p-23);
  if (bias.defined()) exact += bias.to(at::kDouble);
  bound += exact.abs() * 0x1.01p-8;
  EXPECT_TRUE(((y.to(at::kDouble) - exact).abs() <= bound).all().item<bool>()) << what;
}

// Every addition of f32 errs by 2^-24 of the terms' magnitudes at most.
void expect_added(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b, double before,
                  const std::string& what) {
  const at::Tensor da = a.to(at::kDouble), db = b.to(at::kDouble), exact = at::mm(da, db) + before,
                   bound = (at::mm(da.abs(), db.abs()) + std::abs(before)) *
                           (static_cast<double>(a.size(1) + 1) * 0x1p-24);
  EXPECT_TRUE(((sum.to(at::kDouble) - exact).abs() <= bound).all().item<bool>()) << what;
}

}  // namespace

TEST(Bf16Product, EveryInstructionSetRoundsTheExactSumsOnce) {
  for (const cpu::Table* table : cpu::all_cpu_tables())
    for (const bool a_columns : {false, true})
      for (const bool b_columns : {false, true})
        for (const int64_t M : {1, 7, 33})
          for (const int64_t K : {1, 16, 19, 256, 530})
            for (const int64_t N : {1, 16, 33, 70}) {
              const at::Tensor a = laid_out(bf16({M, K}, 1), a_columns),
                               b = laid_out(bf16({K, N}, 2), b_columns), bias = bf16({N}, 3);
              const cpu::ProductShape s{M, N, K, a.stride(0), a.stride(1), b.stride(0), b.stride(1), N + 3};
              at::Tensor out = at::full({M, N + 3}, 5.0, a.options()),
                         scratch = at::full({table->bf16_product_scratch(s)}, NAN);
              for (const bool biased : {false, true}) {
                table->bf16_product(s, cpu::read<cpu::Bf16>(a), cpu::read<cpu::Bf16>(b),
                                    biased ? cpu::read<cpu::Bf16>(bias) : nullptr, cpu::write<cpu::Bf16>(out),
                                    cpu::write<float>(scratch));
                expect_rounded(
                    out.narrow(1, 0, N), a, b, biased ? bias : at::Tensor(),
                    fmt::format("{} {}x{}x{} {}{}{}", table->name, M, K, N, a_columns, b_columns, biased));
                EXPECT_TRUE((out.narrow(1, N, 3) == 5.0).all().item<bool>()) << "what lies beside a row";
              }
              at::Tensor sum = at::full({M, N + 3}, 5.0);
              scratch.fill_(NAN);
              table->bf16_product_added(s, cpu::read<cpu::Bf16>(a), cpu::read<cpu::Bf16>(b),
                                        cpu::write<float>(sum), cpu::write<float>(scratch));
              expect_added(sum.narrow(1, 0, N), a, b, 5.0, table->name);
              EXPECT_TRUE((sum.narrow(1, N, 3) == 5.0).all().item<bool>()) << "what lies beside a row";
            }
}

TEST(Bf16Product, BlocksAndThreadsLeaveItsBits) {
  const at::Tensor a = bf16({700, 300}, 1), b = bf16({300, 1100}, 2);
  at::Tensor whole = at::empty({700, 1100}, a.options()), out = at::empty_like(whole),
             row = at::empty({1, 1100}, a.options());
  products::in_f32_out(whole, a, b);
  expect_rounded(whole, a, b, {}, "blocks");
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    products::in_f32_out(out, a, b);
    EXPECT_TRUE(same_bits(out, whole)) << count << " threads";
    products::in_f32_out(row, a.narrow(0, 300, 1), b);
    EXPECT_TRUE(same_bits(row, whole.narrow(0, 300, 1))) << "a row alone, " << count << " threads";
  }
  at::set_num_threads(threads);
}

TEST(Bf16Product, TakesAnyStridesAndEmptySides) {
  const at::Tensor a = bf16({6, 8, 40}, 1).select(1, 3), b = bf16({40, 2, 9, 2}, 2).select(3, 1).select(1, 0);
  at::Tensor out = at::empty({6, 9}, a.options());
  products::in_f32_out(out, a, b);
  expect_rounded(out, a, b, {}, "strides");
  const at::Tensor bias = bf16({9}, 3);
  products::in_f32_out(out, a.narrow(1, 0, 0), b.narrow(0, 0, 0), bias);
  EXPECT_TRUE(at::equal(out, bias.expand({6, 9})));
  products::in_f32_out(out, a.narrow(1, 0, 0), b.narrow(0, 0, 0));
  EXPECT_TRUE(at::equal(out, at::zeros_like(out)));
  at::Tensor none = out.narrow(0, 0, 0);
  products::in_f32_out(none, a.narrow(0, 0, 0), b);
}

TEST(Bf16Product, LayersDifferentiateAsLibTorchsDo) {
  const Tensors inputs{normal({2, 13, 37}, 1), normal({29, 37}, 2), normal({29}, 3)};
  const auto ours = [](const Tensors& t) { return products::linears(t[0], t[1], t[2], true)[0]; };
  const auto plain = [](const Tensors& t) { return at::linear(t[0], t[1], t[2]); };
  expect_as_good("linear", ours, plain, inputs, at::kBFloat16);
  expect_as_good(
      "linear without a bias", [](const Tensors& t) { return products::linears(t[0], t[1], {}, true)[0]; },
      [](const Tensors& t) { return at::linear(t[0], t[1]); }, {inputs[0], inputs[1]}, at::kBFloat16);
}

TEST(Bf16Product, WhatIsFrozenHasNoGradient) {
  const at::Tensor x = bf16({5, 8}, 1), w = bf16({3, 8}, 2), dy = bf16({5, 3}, 3);
  at::Tensor x_free = x.clone().requires_grad_(), w_free = w.clone().requires_grad_();
  products::linears(x_free, w, {}, true)[0].backward(dy);
  products::linears(x, w_free, {}, true)[0].backward(dy);
  expect_rounded(x_free.grad(), dy, w, {}, "dx");
  expect_rounded(w_free.grad(), dy.t(), x, {}, "dw");
  EXPECT_FALSE(products::linears(x, w, {}, true)[0].requires_grad());
}

// One node of several weights gives what each by itself does, whichever of its outputs are used and whatever learns.
TEST(LinearProducts, AreEachAndTheirGradientsAddUp) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const bool biased : {false, true})
      for (const int frozen : {-1, 0, 1, 3}) {  // none, x, the first weight, and all weights
        SCOPED_TRACE(fmt::format("{} biased {} frozen {}", c10::toString(dtype), biased, frozen));
        const auto leaf = [&](at::IntArrayRef shape, uint64_t seed, bool learns) {
          return normal(shape, seed).to(dtype).requires_grad_(learns);
        };
        const at::Tensor x = leaf({2, 5, 24}, 1, frozen != 0);
        Tensors weights, biases;
        for (const int64_t out : {16, 8, 40}) {
          const bool learns = frozen != 3 && !(frozen == 1 && weights.empty());
          weights.push_back(leaf({out, 24}, static_cast<uint64_t>(out), learns));
          if (biased) biases.push_back(leaf({out}, static_cast<uint64_t>(out) + 1, learns));
        }
        const auto exact = [&](const at::Tensor& t) {
          return t.detach().to(at::kDouble).requires_grad_(t.requires_grad());
        };
        const at::Tensor exact_x = exact(x);
        at::Tensor ours = at::zeros({}, at::kFloat), theirs = at::zeros({}, at::kDouble);
        Tensors exact_weights, exact_biases;
        const Tensors together = linear_products(x, weights, biases);
        for (size_t i = 0; i < weights.size(); ++i) {
          const at::Tensor alone = linear_product(x, weights[i], biased ? biases[i] : at::Tensor());
          EXPECT_TRUE(same_bits(together[i], alone));
          exact_weights.push_back(exact(weights[i]));
          exact_biases.push_back(biased ? exact(biases[i]) : at::Tensor());
          if (i == 1) continue;  // an output that nothing reads
          const at::Tensor direction = normal(alone.sizes(), 50 + i).to(dtype);
          ours = ours + (together[i] * direction).sum();
          theirs = theirs + (at::linear(exact_x, exact_weights[i], exact_biases[i]) * direction).sum();
        }
        if (!ours.requires_grad()) continue;
        ours.backward(), theirs.backward();
        const double bound = dtype == at::kFloat ? 0x1p-20 : 0x1p-6;
        const auto expect_gradient = [&](const at::Tensor& got, const at::Tensor& expected, bool read) {
          ASSERT_EQ(got.grad().defined(), got.requires_grad() && read);
          if (!got.grad().defined()) return;
          EXPECT_LE(relative_error(got.grad(), expected.grad()), bound);
        };
        expect_gradient(x, exact_x, true);
        for (size_t i = 0; i < weights.size(); ++i) {
          expect_gradient(weights[i], exact_weights[i], i != 1);
          if (biased) expect_gradient(biases[i], exact_biases[i], i != 1);
        }
      }
}

TEST(Bf16Product, TheProcessorChooses) {
  CpuFeatures amd;
  EXPECT_TRUE(multiplies_bf16_in_f32(amd)) << "no units";
  EXPECT_FALSE(prefers_bf16(amd));
  amd.avx512 = amd.avx512_bf16 = amd.avx512_fp16 = true;
  EXPECT_FALSE(multiplies_bf16_in_f32(amd));
  EXPECT_TRUE(prefers_bf16(amd));
  CpuFeatures intel = amd;
  intel.intel = true;
  EXPECT_TRUE(multiplies_bf16_in_f32(intel)) << "AMX is hidden";
  EXPECT_FALSE(prefers_bf16(intel));
  intel.amx_bf16 = true;
  EXPECT_FALSE(multiplies_bf16_in_f32(intel));
  EXPECT_TRUE(prefers_bf16(intel));
  intel.amx_bf16 = intel.avx512_fp16 = false;
  EXPECT_FALSE(multiplies_bf16_in_f32(intel)) << "Cooper Lake";

  const at::Tensor x = bf16({40, 700}, 1), w = bf16({50, 700}, 2);
  const bool here = multiplies_bf16_in_f32(cpu_features());
  const at::Tensor ours = products::linears(x, w, {}, true)[0], given = here ? ours : at::linear(x, w);
  EXPECT_TRUE(same_bits(linear_product(x, w, {}), given));
  EXPECT_TRUE(same_bits(product(x, w.t()), here ? ours : at::mm(x, w.t())));
  at::Tensor out = at::empty_like(ours);
  product_out(out, x, w.t());
  EXPECT_TRUE(same_bits(out, here ? ours : at::mm(x, w.t())));
  EXPECT_TRUE(same_bits(linear_product(x.to(at::kFloat), w.to(at::kFloat), {}),
                        at::linear(x.to(at::kFloat), w.to(at::kFloat))));
}

TEST(Bf16Product, RefusesWhatDoesNotFit) {
  const at::Tensor a = bf16({4, 8}, 1), b = bf16({8, 5}, 2);
  at::Tensor out = at::empty({4, 5}, a.options()), turned = at::empty({5, 4}, a.options()).t();
  EXPECT_THROW(products::in_f32_out(out, a, b.t()), ShapeError);
  EXPECT_THROW(products::in_f32_out(out, a.narrow(0, 0, 3), b), ShapeError);
  EXPECT_THROW(products::in_f32_out(out, a, b, bf16({4}, 3)), ShapeError);
  EXPECT_THROW(products::in_f32_out(out, a.to(at::kFloat), b), ShapeError);
  EXPECT_THROW(products::in_f32_out(turned, a, b), ShapeError);
  EXPECT_THROW(products::linears(a, b, {}, true), ShapeError);
  EXPECT_THROW(linear_products(a, {b.t(), b.t()}, {bf16({5}, 4)}), ShapeError);
  at::Tensor sum = at::zeros({8, 5});
  EXPECT_THROW(products::add_in_f32(sum, a, b), ShapeError);
  EXPECT_THROW(products::add_in_f32(sum, a, out.to(at::kFloat)), ShapeError);
  at::Tensor rounded = sum.to(at::kBFloat16), sum_turned = at::zeros({5, 8}).t();
  EXPECT_THROW(products::add_in_f32(rounded, a, out), ShapeError);
  EXPECT_THROW(products::add_in_f32(sum_turned, a, out), ShapeError);
}

namespace {

constexpr int64_t kRows = 16;

// Chunks of rows, bf16, and what they add up to in fp64.
struct Walk {
  at::Tensor a_NV, b_ND;
  Walk(int64_t columns, int64_t width, int64_t chunks)
      : a_NV(normal({chunks * kRows, columns}, 1, 0.01).to(at::kBFloat16)),
        b_ND(normal({chunks * kRows, width}, 2).to(at::kBFloat16)) {}

  at::Tensor exact() const { return at::mm(a_NV.to(at::kDouble).t(), b_ND.to(at::kDouble)); }
  // The largest sum of terms' magnitudes: each addition of f32 errs by 2^-24 of it at most.
  double terms() const {
    return at::mm(a_NV.to(at::kDouble).abs().t(), b_ND.to(at::kDouble).abs()).max().item<double>();
  }
  using Add = std::function<void(at::Tensor&, const at::Tensor&, const at::Tensor&)>;
  at::Tensor sum(const Add& add, at::Tensor sum_VD = {}) const {
    for (int64_t row = 0; row < a_NV.size(0); row += kRows)
      add(sum_VD, a_NV.narrow(0, row, kRows), b_ND.narrow(0, row, kRows));
    return sum_VD;
  }
  double error(const Add& add, const at::Tensor& start = {}) const {
    return worst_error(sum(add, start), exact());
  }
};

void rounded(at::Tensor& sum_VD, const at::Tensor& a_CV, const at::Tensor& b_CD) {
  const at::Tensor product_VD = at::mm(a_CV.t(), b_CD);
  sum_VD = sum_VD.defined() ? sum_VD.add_(product_VD) : product_VD.to(at::kFloat);
}

}  // namespace

// A chunk that is rounded to bf16 errs by up to 2^-9 of itself; sums in f32 by 2^-24 of their terms an addition.
TEST(ProductSum, IsF32OverChunksOfBf16) {
  struct Size {
    int64_t columns, width, chunks;
  };
  for (const auto& [columns, width, chunks] : {Size{1, 1, 40}, {37, 12, 40}, {300, 64, 40}, {17000, 3, 2}}) {
    SCOPED_TRACE(columns);
    const Walk walk(columns, width, chunks);
    const double bound = chunks * kRows * 0x1p-24 * walk.terms(), of_rounded = walk.error(rounded);
    const double ours = walk.error(add_product);
    EXPECT_LE(ours, bound);
    EXPECT_GE(of_rounded, 16 * ours) << "the rounding that is left out must show";
    const auto start = [&] { return at::zeros({columns, width}); };
    EXPECT_LE(walk.error(products::add_in_f32, start()), bound);
    bool there = true;
    const auto by_mkl = [&](at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
      there = there && products::add_by_mkl(sum, a, b);
    };
    const double of_mkl = walk.error(by_mkl, start());
    EXPECT_TRUE(!there || of_mkl <= bound) << of_mkl;
  }
}

// MKL adds in an order of its own, so that bits tell whose product it was.
TEST(ProductSum, IsOfMklWhereThereIsAmx) {
  const Walk walk(300, 64, 40);
  const auto start = [] { return at::zeros({300, 64}); };
  bool there = true;
  const auto by_mkl = [&](at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
    there = products::add_by_mkl(sum, a, b);
  };
  const at::Tensor ours = walk.sum(products::add_in_f32, start()), of_mkl = walk.sum(by_mkl, start());
  EXPECT_TRUE(same_bits(walk.sum(add_product), cpu_features().amx_bf16 && there ? of_mkl : ours));
}

TEST(ProductSum, AddsToWhatIsThereAndTakesViews) {
  const at::Tensor a = normal({8, 24}, 1).to(at::kBFloat16), b = normal({8, 12}, 2).to(at::kBFloat16);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor left = a.narrow(1, 3, 9).to(dtype), right = b.t().contiguous().t().to(dtype);
    at::Tensor sum = at::ones({9, 12}), mkl = sum.clone(), from_nothing;
    add_product(sum, left, right);
    add_product(from_nothing, left, right);
    const at::Tensor exact = at::mm(left.to(at::kDouble).t(), right.to(at::kDouble));
    EXPECT_LE(worst_error(from_nothing, exact), 8 * 0x1p-24 * 8 * 9.0);
    EXPECT_LE(worst_error(sum, exact + 1.0), 9 * 0x1p-24 * 8 * 9.0);
    if (dtype == at::kBFloat16 && products::add_by_mkl(mkl, left, right)) {
      EXPECT_LE(worst_error(mkl, exact + 1.0), 9 * 0x1p-24 * 8 * 9.0);
    }
  }
  at::Tensor nothing;
  add_product(nothing, a.narrow(0, 0, 0), b.narrow(0, 0, 0));
  EXPECT_EQ(nothing.abs().sum().item<float>(), 0.0f);
  EXPECT_EQ(nothing.sizes(), (std::vector<int64_t>{24, 12}));
}

TEST(ProductSum, OfBf16DoesNotFollowTheThreads) {
  const Walk walk(40000, 3, 2);
  const auto on = [&](int threads) {
    const Threads limit(threads);
    return walk.sum(products::add_in_f32, at::zeros({40000, 3}));
  };
  EXPECT_TRUE(same_bits(on(1), on(2)));
  EXPECT_TRUE(same_bits(on(1), on(3)));
}

}  // namespace retort::kernels
