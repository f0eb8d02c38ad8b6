#include "comm/device_comm.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/comm/subgroups.h"

namespace retort::comm {
namespace {

// One that carries nothing.
struct IdleWire final : DeviceWire {
  explicit IdleWire(std::atomic<int>& calls) : called(calls) {}
  std::string name() const override { return "idle"; }
  void join() override { ++called; }
  void leave() override { ++called; }
  void trade(const std::vector<at::Tensor>&, const std::vector<at::Tensor>&, const c10::Stream&) override {
    ADD_FAILURE() << "a tensor of the host's";
  }
  LaunchWatch::State state() override { return {}; }
  void abort() override { ADD_FAILURE() << "nothing is wrong"; }
  std::atomic<int>& called;
};

}  // namespace

// Tensors of the host go straight to its group, by subgroups too; tests/fake_device has those of devices.
TEST(DeviceComm, IsTheHostsGroupForTheHostsTensors) {
  std::atomic<int> called = 0;
  run_thread_ranks(4, [&](Comm& host) {
    const auto comm = make_device_comm(host, std::make_unique<IdleWire>(called));
    EXPECT_EQ(comm->name(), "idle");
    trade_in_rows_and_columns(*comm);
    trade_messages(*comm);
  });
  EXPECT_EQ(called, 8);  // each joins and leaves
}

}  // namespace retort::comm
