// Ends the process with exit code 76 unless the object goes in time: for calls into MPI and NCCL that wait for other ranks
// and cannot be left. At least half a minute, since a machine may be slow to start its ranks.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "core/error.h"

namespace retort::comm {

class Deadline {
 public:
  static constexpr double kLeast = 30;  // seconds
  // `what` this rank does meanwhile: "joining the MPI group".
  Deadline(double seconds, std::string what, double least = kLeast)
      : thread_([this, seconds = std::max(seconds, least), what = std::move(what)] { wait(seconds, what); }) {
  }
  ~Deadline() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  void wait(double seconds, const std::string& what) {
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return over_; })) return;
    fmt::print(stderr,
               "[comm] {}: waited {:g} s for the other ranks (RETORT_COMM_TIMEOUT=SECONDS sets how long)\n",
               what, seconds);
    std::fflush(stderr);
    std::_Exit(static_cast<int>(ExitCode::kCommunication));
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retort::comm
