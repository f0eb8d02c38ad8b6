// A wire between the fake devices of ranks that are threads: a post office, where a message waits for whoever it is for.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>

#include "comm/device_comm.h"
#include "core/error.h"
#include "tests/fake_device/fake_device.h"

namespace retort::testing {

class PostOffice {
 public:
  void put(int from, int to, at::Tensor message) {
    {
      const std::lock_guard lock(mutex_);
      boxes_[{from, to}].push_back(std::move(message));
    }
    changed_.notify_all();
  }
  at::Tensor take(int from, int to) {
    std::unique_lock lock(mutex_);
    std::deque<at::Tensor>& box = boxes_[{from, to}];
    changed_.wait(lock, [&] { return !box.empty() || closed_; });
    check<CommError>(!box.empty(), "the post office is closed");
    at::Tensor message = std::move(box.front());
    box.pop_front();
    return message;
  }
  // After a failure of any rank nobody waits for its messages.
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  std::map<std::pair<int, int>, std::deque<at::Tensor>> boxes_;
};

class PostWire final : public comm::DeviceWire {
 public:
  PostWire(PostOffice& office, int rank) : office_(office), rank_(rank) {}
  std::string name() const override { return "post"; }
  void trade(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive,
             const c10::Stream&) override {
    const Uncounted by_the_host;  // NCCL's go from device to device
    for (size_t peer = 0; peer < send.size(); ++peer)
      if (send[peer].defined()) office_.put(rank_, static_cast<int>(peer), send[peer].cpu());
    for (size_t peer = 0; peer < receive.size(); ++peer) {
      if (!receive[peer].defined()) continue;
      const at::Tensor message = office_.take(static_cast<int>(peer), rank_);
      RETORT_ASSERT(message.nbytes() == receive[peer].nbytes());
      receive[peer].copy_(message.view_as(receive[peer]), /*non_blocking=*/true);
    }
  }
  comm::LaunchWatch::State state() override { return {}; }
  void abort() override { office_.close(); }

 private:
  PostOffice& office_;
  int rank_;
};

}  // namespace retort::testing
