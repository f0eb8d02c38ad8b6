// What the fake device holds about graphs: what a replay does, and each fault that it is to find.
#include "tests/fake_device/graph.h"

#include <c10/core/Event.h>
#include <gmock/gmock.h>

#include "kernels/activation.h"
#include "kernels/cuda_ops.h"
#include "tests/fake_device/fake_device.h"
#include "tests/fake_device/streams.h"
#include "tests/testing.h"

namespace retort::testing {
namespace {

using ::testing::HasSubstr, ::testing::ThrowsMessage;

at::Tensor numbers() { return at::linspace(-1, 1, 12).view({3, 4}); }

std::unique_ptr<kernels::DeviceGraph> capture(const std::function<void()>& work) {
  return kernels::graphs_for(fake_device())(fake_device(), work);
}

// LibTorch's operators, kernels of ours, copies and views, with a backward pass on a thread of its own.
TEST(Graphs, AReplayDoesItAllAgainOnWhatItsInputsHoldNow) {
  const auto result = [](const at::Tensor& x) {
    const at::Tensor leaf = x.detach().requires_grad_(true);
    const at::Tensor y =
        kernels::swiglu(leaf * 2 + 1, leaf.t().contiguous().t()).to(at::kBFloat16).to(at::kFloat);
    std::get<0>(y.sort(1, true)).narrow(1, 1, 2).sum().backward();
    return at::stack({y.detach(), leaf.grad().clone()});
  };
  const at::Tensor x = numbers().to(fake_device());
  at::Tensor out;
  const Watch watch;
  const auto graph = capture([&] { out = result(x); });
  EXPECT_TRUE(out.cpu().isnan().all().item<bool>()) << "nothing has run yet";
  const Watch replays;
  for (const double scale : {1.0, 3.0}) {
    x.copy_(numbers() * scale);
    graph->replay();
    EXPECT_TRUE(same_bits(out.cpu(), result((numbers() * scale).to(fake_device())).cpu()));
  }
  EXPECT_EQ(watch.traffic().graphs, 1);
  EXPECT_EQ(replays.traffic().replays, 2);
}

// The host's numbers are those of the capture.
TEST(Graphs, AReplayTakesNothingFromTheHostAnew) {
  const at::Tensor x = numbers().to(fake_device()), scalar = at::scalar_tensor(2.0);
  double factor = 3.0;
  at::Tensor out;
  const auto graph = capture([&] { out = x * factor + scalar; });
  factor = 5.0;
  scalar.fill_(7.0);
  graph->replay();
  EXPECT_TRUE(same_bits(out.cpu(), numbers() * 3.0 + 2.0));
}

TEST(Graphs, NothingMayAskForTheHost) {
  const at::Tensor x = numbers().to(fake_device());
  const auto refused = ThrowsMessage<c10::Error>(HasSubstr("where no graph can have it that"));
  EXPECT_THAT([&] { capture([&] { x.sum().item<float>(); }); }, refused);
  EXPECT_THAT([&] { capture([&] { (x + 1).cpu(); }); }, refused);
  EXPECT_THAT([&] { capture([&] { x.gt(0).nonzero(); }); }, refused);
  EXPECT_THAT([&] { capture([&] { numbers().to(fake_device()); }); }, refused);
  EXPECT_THAT([&] { capture([&] { numbers().pin_memory().to(fake_device(), true); }); }, refused);
  capture([&] { x + 1; })->replay();  // a refused capture leaves nothing behind
}

TEST(Graphs, NoOtherStreamIsWaitedFor) {
  c10::Event before(fake_device().type());
  before.record(Streams::current(0));
  EXPECT_THROW(capture([&] { before.block(Streams::current(0)); }), c10::Error);
}

TEST(Graphs, MemoryOfOthersIsNotWritten) {
  const at::Tensor x = numbers().to(fake_device());
  EXPECT_THAT([&] { capture([&] { x.add_(1); }); },
              ThrowsMessage<c10::Error>(HasSubstr("writes to memory that is not its own")));
  EXPECT_TRUE(same_bits(x.cpu(), numbers()));
}

// Of an operator and of a kernel of ours, whose operands are found among its arguments.
TEST(Graphs, WhatItReadsMustStayThere) {
  const auto freed = ThrowsMessage<c10::Error>(HasSubstr("memory that has been freed since it was captured"));
  for (const bool ours : {false, true}) {
    at::Tensor x = numbers().to(fake_device()), out;
    const at::Tensor one = at::ones_like(x);
    const auto graph = capture([&] { out = ours ? kernels::swiglu(one, x) : one + x; });
    graph->replay();
    x = at::Tensor();
    EXPECT_THAT([&] { graph->replay(); }, freed);
    x = numbers().to(fake_device());  // in the same place, perhaps
    EXPECT_THAT([&] { graph->replay(); }, freed);
  }
}

// What is freed during capture serves again, what lives on stays, and nobody else gets either while the graph is there.
TEST(Graphs, MemoryBelongsToItsGraph) {
  const at::Tensor x = numbers().to(fake_device());
  at::Tensor out;
  auto graph = capture([&] {
    out = x + 1;
    for (int i = 0; i < 3; ++i) out = out * 2 + x;
  });
  graph->replay();
  std::vector<at::Tensor> others;
  for (int i = 0; i < 8; ++i) others.push_back(at::zeros_like(x));
  graph->replay();
  for (const at::Tensor& other : others) EXPECT_TRUE(same_bits(other.cpu(), at::zeros({3, 4})));
  const at::Tensor want = ((numbers() + 1) * 2 + numbers()) * 2 + numbers();
  EXPECT_TRUE(same_bits(out.cpu(), want * 2 + numbers()));
  graph.reset();
  EXPECT_TRUE(same_bits(out.cpu(), want * 2 + numbers()));
}

}  // namespace
}  // namespace retort::testing
