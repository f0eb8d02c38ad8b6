#include "tests/cuda_emulation/providers.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "kernels/cuda_ops.h"
#include "tests/cuda_emulation/schedule.h"

namespace retort::testing {

namespace {

using kernels::cuda::Ops;

// The device must be known before the first backward pass.
class LoadCuda final : public ::testing::Environment {
  void SetUp() override { kernels::cuda::load(); }
};
const ::testing::Environment* const kLoadCuda = ::testing::AddGlobalTestEnvironment(new LoadCuda);

const Ops& emulated_ops() {
  static const Ops ops(
      kernels::cuda::emulated::table(),
      [](const at::Tensor&, const std::function<void(kernels::cuda::Stream)>& kernels) { kernels(nullptr); });
  return ops;
}

Tensors under_every_order(const std::string& what, const KernelRun& run) {
  Tensors first;
  for (const emulation::Schedule& schedule : emulation::schedules()) {
    const emulation::Scheduled in_turn(schedule);
    const Tensors got = run(emulated_ops(), at::kCPU);
    if (first.empty()) first = got;
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(same_bits(got[i], first[i])) << what << " result " << i << " " << schedule.name();
  }
  return first;
}

}  // namespace

void everywhere(const std::string& what, const KernelRun& run,
                const std::function<void(const Tensors&)>& check) {
  const bool emulates = std::getenv("RETORT_ONLY_DEVICE") == nullptr;
  if (emulates) check(under_every_order(what, run));
  if (const std::string why = kernels::cuda::load(); !why.empty()) {
    if (!emulates) GTEST_SKIP() << why;
    return;
  }
  Tensors got = run(kernels::cuda::device_ops(), at::kCUDA);
  for (at::Tensor& x : got) x = x.to(at::kCPU);
  check(got);
}

at::Tensor placed(const at::Tensor& x, const at::Device& device, int64_t offset) {
  at::Tensor memory = at::empty({x.numel() + offset}, x.options().device(device));
  at::Tensor out = memory.narrow(0, offset, x.numel()).view(x.sizes());
  out.copy_(x);
  return out;
}

at::Tensor direction_of(at::IntArrayRef shape, at::ScalarType dtype) { return normal(shape, 99).to(dtype); }

void expect_no_worse(const std::string& what, const Tensors& got, const Tensors& usual, const Tensors& exact,
                     double terms) {
  std::vector<double> of_results(exact.size(), terms);
  if (!of_results.empty()) of_results[0] = 0.0;
  expect_no_worse(what, got, usual, exact, of_results);
}

void expect_no_worse(const std::string& what, const Tensors& got, const Tensors& usual, const Tensors& exact,
                     const std::vector<double>& terms) {
  ASSERT_EQ(got.size(), exact.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    const double unit = usual[i].scalar_type() == at::kBFloat16 ? 0x1p-8 : 0x1p-23;
    const double largest = exact[i].numel() == 0 ? 0.0 : exact[i].abs().max().item<double>();
    const double allowed = 2.0 * (worst_error(usual[i], exact[i]) + unit * std::max(largest, terms[i]));
    EXPECT_EQ(got[i].scalar_type(), usual[i].scalar_type()) << what << " result " << i;
    EXPECT_LE(worst_error(got[i], exact[i]), allowed) << what << " result " << i;
  }
}

void expect_no_worse(const std::string& what, const Tensors& got, const Operation& plain,
                     const Tensors& inputs, at::ScalarType dtype, double terms) {
  const auto list = [](const Outcome& outcome) {
    Tensors all{outcome.value};
    all.insert(all.end(), outcome.gradients.begin(), outcome.gradients.end());
    return all;
  };
  expect_no_worse(what, got, list(run(plain, inputs, dtype)), list(run(plain, inputs, at::kDouble)), terms);
}

}  // namespace retort::testing
