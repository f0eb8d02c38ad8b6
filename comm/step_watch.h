// Says on its rank's own log, once a step, when a step has taken factor times the median of the last ones and also
// `seconds`, and which collective the rank is in: the peers' watchdog can only say that this one does not come. A
// thread of its own looks; begin() and end() are called by another.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "comm/flight.h"
#include "core/log.h"

namespace retort::comm {

class StepWatch {
 public:
  // flight, if not nullptr, and log outlive it.
  StepWatch(const Flight* flight, Log& log, double factor = 10, double seconds = 30);
  ~StepWatch();
  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;
  void begin(int64_t step);
  void end();

 private:
  using Clock = std::chrono::steady_clock;
  void look();
  std::optional<double> median() const;  // of enough steps

  const Flight* const flight_;
  Log& log_;
  const double factor_, seconds_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Clock::time_point> began_;  // of the step under way
  int64_t step_ = 0;
  bool said_ = false, over_ = false;
  std::deque<double> took_;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace retort::comm
