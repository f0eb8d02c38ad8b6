#include "comm/step_watch.h"

#include <algorithm>
#include <vector>

namespace retort::comm {
namespace {

constexpr size_t kEnough = 3, kMost = 63;  // steps
constexpr double kLooks = 16;              // while `seconds` pass

}  // namespace

StepWatch::StepWatch(const Flight* flight, Log& log, double factor, double seconds)
    : flight_(flight), log_(log), factor_(factor), seconds_(seconds), thread_([this] { look(); }) {}

StepWatch::~StepWatch() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StepWatch::begin(int64_t step) {
  const std::lock_guard lock(mutex_);
  began_ = Clock::now();
  step_ = step;
  said_ = false;
}

void StepWatch::end() {
  const std::lock_guard lock(mutex_);
  took_.push_back(std::chrono::duration<double>(Clock::now() - *began_).count());
  if (took_.size() > kMost) took_.pop_front();
  began_.reset();
}

std::optional<double> StepWatch::median() const {
  if (took_.size() < kEnough) return std::nullopt;
  std::vector<double> sorted(took_.begin(), took_.end());
  const auto middle = sorted.begin() + std::ssize(sorted) / 2;
  std::ranges::nth_element(sorted, middle);
  return *middle;
}

void StepWatch::look() {
  std::unique_lock lock(mutex_);
  while (
      !changed_.wait_for(lock, std::chrono::duration<double>(seconds_ / kLooks), [this] { return over_; })) {
    const std::optional<double> usual = median();
    if (!began_ || said_ || !usual) continue;
    const double lasted = std::chrono::duration<double>(Clock::now() - *began_).count();
    if (lasted < std::max(seconds_, factor_ * *usual)) continue;
    said_ = true;
    log_.warn("{}step {} has lasted {:.1f} s, and others take {:.1f} s{}",
              flight_ == nullptr ? "" : fmt::format("rank {}: ", flight_->rank()), step_, lasted, *usual,
              flight_ == nullptr ? "" : "; it is " + flight_->now());
  }
}

}  // namespace retort::comm
