#include "tests/kernels/gradcheck.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/linear_loss.h"
#include "tests/testing.h"

namespace retort::testing {

at::Tensor normal(at::IntArrayRef shape, uint64_t seed, double std) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  return (at::randn(shape, generator, at::kDouble) * std).to(at::kBFloat16).to(at::kDouble);
}

at::Tensor random_labels(int64_t rows, int64_t vocabulary, uint64_t seed, int64_t ignore_every) {
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  at::Tensor labels = at::randint(vocabulary, {rows}, generator, at::kLong);
  if (ignore_every > 0) labels.slice(0, ignore_every - 1, rows, ignore_every).fill_(kernels::kIgnoredLabel);
  return labels;
}

Outcome run(const Operation& operation, const Tensors& inputs, at::ScalarType dtype) {
  Tensors leaves;
  for (const at::Tensor& input : inputs)
    leaves.push_back(input.detach().to(dtype, false, true).requires_grad_(true));
  const at::Tensor value = operation(leaves);
  const at::Tensor direction =
      value.dim() == 0 ? at::ones_like(value) : normal(value.sizes(), 99).to(value.scalar_type());
  const Tensors gradients = torch::autograd::grad({value}, leaves, {direction});
  return {value.detach(), gradients};
}

double worst_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  if (a.numel() == 0) return 0.0;
  const double error = (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

void expect_as_good(const std::string& what, const Operation& ours, const Operation& plain,
                    const Tensors& inputs, at::ScalarType dtype, double terms) {
  const Outcome exact = run(plain, inputs, at::kDouble);
  const Outcome usual = run(plain, inputs, dtype), got = run(ours, inputs, dtype);
  const double unit = dtype == at::kBFloat16 ? 0x1p-8 : 0x1p-23;
  const auto compare = [&](const std::string& name, const at::Tensor& g, const at::Tensor& u,
                           const at::Tensor& e, double cancelled) {
    EXPECT_EQ(g.scalar_type(), u.scalar_type()) << what << " " << name;
    const double largest = e.numel() == 0 ? 0.0 : e.abs().max().item<double>();
    EXPECT_LE(worst_error(g, e), 2.0 * (worst_error(u, e) + unit * std::max(largest, cancelled)))
        << what << " " << name;
  };
  compare("value", got.value, usual.value, exact.value, 0.0);
  for (size_t i = 0; i < inputs.size(); ++i)
    compare("gradient " + std::to_string(i), got.gradients[i], usual.gradients[i], exact.gradients[i], terms);
}

void expect_thread_independent(const Operation& operation, const Tensors& inputs) {
  const int before = at::get_num_threads();
  const auto with_threads = [&](int threads) {
    at::set_num_threads(threads);
    const Outcome outcome = run(operation, inputs, at::kFloat);
    at::set_num_threads(before);
    return outcome;
  };
  const Outcome one = with_threads(1);
  for (const int threads : {2, 3, 5}) {
    const Outcome other = with_threads(threads);
    EXPECT_TRUE(same_bits(one.value, other.value)) << threads << " threads";
    for (size_t i = 0; i < inputs.size(); ++i)
      EXPECT_TRUE(same_bits(one.gradients[i], other.gradients[i])) << "input " << i << ", " << threads;
  }
}

}  // namespace retort::testing
