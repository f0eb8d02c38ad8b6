#include "comm/launch_watch.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace retort::comm {
namespace {

constexpr auto kSpin = std::chrono::microseconds(200);  // most launches take less, and a step has hundreds
constexpr auto kNap = std::chrono::microseconds(100);   // while the library is busy for longer
constexpr auto kLook = std::chrono::milliseconds(20);   // while the device is

}  // namespace

LaunchWatch::LaunchWatch(std::unique_ptr<Library> library, int rank, double timeout,
                         std::function<void(const std::string&)> tell)
    : library_(std::move(library)), rank_(rank), timeout_(timeout), tell_(std::move(tell)), thread_([this] {
        watch();
      }) {}

LaunchWatch::~LaunchWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LaunchWatch::launch(const std::string& name, const std::function<void()>& call, double least) {
  const std::chrono::duration<double> most(std::max(timeout_, least));
  const Clock::time_point start = Clock::now();
  std::unique_lock lock(mutex_);
  check_held();
  try {
    call();
  } catch (const std::exception& error) {
    lose(name, error.what());
    check_held();
  }
  for (;;) {
    const State state = library_->state();
    if (!state.error.empty())
      lose(name, state.error);
    else if (!state.busy)
      return;
    else if (Clock::now() - start > most)
      lose(name, fmt::format("waited {:g} s for the other ranks to launch it", most.count()));
    check_held();
    lock.unlock();
    Clock::now() - start < kSpin ? std::this_thread::yield() : std::this_thread::sleep_for(kNap);
    lock.lock();
    check_held();  // the thread may have found an earlier one's end
  }
}

void LaunchWatch::add(Work work) {
  {
    const std::lock_guard lock(mutex_);
    works_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void LaunchWatch::check() {
  const std::lock_guard lock(mutex_);
  check_held();
}

bool LaunchWatch::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return works_.empty() || !lost_.empty(); });
  return lost_.empty();
}

void LaunchWatch::give_up(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (lost_.empty()) lose("the group", why);
}

void LaunchWatch::watch() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    if (works_.empty() || !lost_.empty()) {
      changed_.wait(lock, [this] { return over_ || (!works_.empty() && lost_.empty()); });
      continue;
    }
    look();
    if (works_.empty()) changed_.notify_all();  // for drain()
    changed_.wait_for(lock, kLook, [this] { return over_; });
  }
}

void LaunchWatch::look() {
  try {
    for (; !works_.empty() && works_.front().done(); works_.pop_front()) began_.reset();
    if (works_.empty()) return;
    if (const State state = library_->state(); !state.error.empty())
      return lose(works_.front().name, state.error);
    if (!began_ && works_.front().begun()) began_ = Clock::now();
    if (began_ && Clock::now() - *began_ > std::chrono::duration<double>(timeout_))
      lose(works_.front().name,
           fmt::format("waited {:g} s for the other ranks (RETORT_COMM_TIMEOUT=SECONDS sets how long)",
                       timeout_));
  } catch (const std::exception& error) {
    lose(works_.front().name, error.what());
  }
}

void LaunchWatch::check_held() const {
  if (!lost_.empty()) throw CommError(lost_);
}

void LaunchWatch::lose(const std::string& name, const std::string& why) {
  lost_ = fmt::format("[comm] rank {}: {}: {}", rank_, name, why);
  library_->abort();
  works_.clear();
  changed_.notify_all();
  if (tell_) tell_(lost_);
}

}  // namespace retort::comm
