#include "tests/fake_device/fake_device.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "core/host_tensor.h"
#include "core/upload.h"
#include "kernels/cuda_ops.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

at::Tensor numbers() { return at::arange(12, at::kFloat).view({3, 4}); }

TEST(FakeDeviceDeathTest, TheHostCannotReadItsMemory) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const at::Tensor x = numbers().to(fake_device());
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile const float*>(x.const_data_ptr<float>())), "");
  EXPECT_DEATH(*static_cast<volatile float*>(x.mutable_data_ptr<float>()) = 1, "");
  EXPECT_THROW(host_values<const float>(x), InternalError);
}

TEST(FakeDevice, GivesBackWhatWasBroughtThere) {
  const at::Tensor x = numbers(), there = x.to(fake_device());
  EXPECT_EQ(there.device(), fake_device());
  EXPECT_TRUE(same_bits(there.cpu(), x));
  EXPECT_TRUE(same_bits(there.t().cpu(), x.t()));
  EXPECT_TRUE(same_bits(there.narrow(1, 1, 2).to(at::kBFloat16).cpu(), x.narrow(1, 1, 2).to(at::kBFloat16)));
  EXPECT_TRUE(at::empty({3}, at::TensorOptions(fake_device())).isnan().all().item<bool>()) << "fresh memory";
}

// Views, results in place, results of a size that only the operator knows, lists.
TEST(FakeDevice, ComputesAsTheCpuDoes) {
  const at::Tensor x = numbers(), y = x.to(fake_device());
  const auto both = [&](const char* what, const std::function<at::Tensor(const at::Tensor&)>& f) {
    const at::Tensor there = f(y.clone());
    EXPECT_EQ(there.device(), fake_device()) << what;
    EXPECT_TRUE(same_bits(there.cpu(), f(x.clone()))) << what;
  };
  both("products", [](const at::Tensor& a) { return at::mm(a, a.t()); });
  both("in place on a view", [](const at::Tensor& a) { return a.select(0, 1).mul_(3.0), a; });
  both("into a view", [](const at::Tensor& a) {
    at::Tensor out = at::zeros({3, 6}, a.options()), part = out.narrow(0, 0, 3).narrow(1, 0, 3);
    at::mm_out(part, a, a.t());
    return out;
  });
  both("an unknown size", [](const at::Tensor& a) { return a.gt(5).nonzero(); });
  both("a list", [](const at::Tensor& a) { return at::cat({a, a, a.neg()}, 1); });
  both("several results", [](const at::Tensor& a) { return std::get<1>(at::topk(a, 2)); });
  both("an index", [](const at::Tensor& a) { return a.index({at::tensor({2, 0}).to(a.device())}); });
  both("arange", [](const at::Tensor& a) { return at::arange(5, a.options()); });
}

TEST(FakeDevice, CountsWhatTheHostWaitsFor) {
  const at::Tensor x = numbers().to(fake_device());
  const Watch watch;
  const at::Tensor y = x.add(1.0).to(at::kBFloat16);
  EXPECT_EQ(watch.traffic().host_reads(), 0);
  EXPECT_EQ(watch.traffic().operators.count("aten::add.out"), 1u);
  y.sum().item<float>();
  EXPECT_EQ(watch.traffic().scalars, 1);
  x.index({x.gt(3)});
  x.gt(3).nonzero();
  EXPECT_EQ(watch.traffic().shapes, 2);
  x.cpu();
  EXPECT_EQ(watch.traffic().to_host, 1);
  EXPECT_EQ(watch.traffic().host_reads(), 4);
  numbers().to(fake_device());
  EXPECT_EQ(watch.traffic().to_device, 1);
}

// A copy waits where its call does, and where the driver may, from memory that is not pinned.
TEST(FakeDevice, CountsUploadsThatWait) {
  const Watch watch;
  numbers().to(fake_device());
  EXPECT_EQ(watch.traffic().uploads_waited, 1);
  numbers().to(fake_device(), /*non_blocking=*/true);
  EXPECT_EQ(watch.traffic().uploads_waited, 2) << "pageable memory";
  numbers().pin_memory().to(fake_device());
  EXPECT_EQ(watch.traffic().uploads_waited, 3);
  EXPECT_TRUE(same_bits(upload(numbers().t(), fake_device()).cpu(), numbers().t()));
  EXPECT_EQ(watch.traffic().uploads_waited, 3);
  const at::Tensor there = numbers().to(fake_device());
  EXPECT_TRUE(upload(there, fake_device()).is_same(there));
}

TEST(FakeDevice, RefusesAMixOfBoth) { EXPECT_THROW(numbers().to(fake_device()).add(numbers()), c10::Error); }

TEST(FakeDevice, RefusesSumsThatHaveNoOrderOnAGpu) {
  const at::Tensor x = numbers().to(fake_device()), row = x.flatten(), learns = x.clone().requires_grad_();
  const at::Tensor ids = at::tensor({2, 0, 2}).to(fake_device());
  EXPECT_THROW(row.cumsum(0), c10::Error);
  EXPECT_THROW(row.view({1, 12}).cumsum(-1), c10::Error);
  EXPECT_NO_THROW(x.cumsum(1));
  EXPECT_NO_THROW(row.to(at::kLong).cumsum(0));
  EXPECT_THROW(x.clone().index_add_(0, ids, x), c10::Error);
  EXPECT_NO_THROW(x.clone().index_add_(0, ids.narrow(0, 0, 2), x.narrow(0, 0, 2))) << "one term a row";
  EXPECT_THROW(x.scatter_add(0, ids.view({3, 1}), x), c10::Error);
  const at::Tensor taken = learns.gather(0, ids.view({3, 1}));
  EXPECT_THROW(taken.sum().backward(), c10::Error) << "its gradient is a sum";
}

TEST(FakeDevice, HasKernelsOfItsOwn) {
  const at::Tensor x = numbers().to(fake_device());
  ASSERT_NE(kernels::cuda::ops_for(x), nullptr);
  EXPECT_STREQ(kernels::cuda::ops_for(x)->table().name, "emulated");
  EXPECT_EQ(kernels::cuda::ops_for(x.to(at::kDouble)), nullptr);
  EXPECT_EQ(kernels::cuda::ops_for(numbers()), nullptr);
  const Watch watch;
  kernels::cuda::ops_for(x)->gate(kernels::Gate::kSilu, x, {});
  EXPECT_EQ(watch.traffic().launches, 1);
}

TEST(FakeDevice, GoesBackwardsAsTheCpuDoes) {
  const auto gradient = [](const at::Device& device) {
    const at::Tensor w = numbers().to(device).requires_grad_();
    at::linear(w.detach(), w).square().sum().backward();
    return w.grad().cpu();
  };
  EXPECT_TRUE(same_bits(gradient(fake_device()), gradient(at::kCPU)));
}

}  // namespace
}  // namespace retort::testing
