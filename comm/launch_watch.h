// Collectives that a library runs on a device and the host only launches, as NCCL's: when a peer is gone, they end with an
// error that nobody asks for, or never. A thread asks, about the one under way. Where the library tells of an error, or the
// device has been at it for longer than the group's timeout, the library is aborted, so that whoever waits for the device
// goes on, and all calls from then on throw a CommError that names this rank and the operation. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace retort::comm {

class LaunchWatch {
 public:
  struct State {
    bool busy = false;  // launching, in the background
    std::string error = {};
  };
  // Called by one thread at a time.
  class Library {
   public:
    virtual ~Library() = default;
    virtual State state() = 0;  // without waiting
    virtual void abort() = 0;   // ends what is under way on the device; the last call
  };
  // What has been launched. Both answer without waiting; what they throw is an error of the work.
  struct Work {
    std::string name;
    std::function<bool()> begun, done;  // whether the device has come to it, and is through with it
  };

  // tell: hears once of what ends the group.
  LaunchWatch(std::unique_ptr<Library> library, int rank, double timeout,
              std::function<void(const std::string&)> tell);
  ~LaunchWatch();
  LaunchWatch(const LaunchWatch&) = delete;
  LaunchWatch& operator=(const LaunchWatch&) = delete;

  // Calls the library and waits while it is busy, up to the timeout or `least` seconds.
  void launch(const std::string& name, const std::function<void()>& call, double least = 0);
  void add(Work work);
  void check();                          // CommError when the group has ended
  bool drain();                          // when all that was added is done; false: the group has ended
  void give_up(const std::string& why);  // ends the group, unless it has ended

 private:
  using Clock = std::chrono::steady_clock;
  void watch();
  void look();
  // With the lock.
  void check_held() const;
  void lose(const std::string& name, const std::string& why);

  const std::unique_ptr<Library> library_;
  const int rank_;
  const double timeout_;
  const std::function<void(const std::string&)> tell_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> works_;
  std::optional<Clock::time_point> began_;  // of the first of them, on the device
  std::string lost_;
  bool over_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retort::comm
