#include "tests/cuda_emulation/schedule.h"

namespace retort::emulation {

namespace {

thread_local Schedule now;

}  // namespace

const Schedule& schedule() { return now; }

std::string Schedule::name() const {
  switch (order) {
    case Order::kForward:
      return "forward";
    case Order::kReverse:
      return "in reverse";
    default:
      return "seed " + std::to_string(seed);
  }
}

Scheduled::Scheduled(const Schedule& wanted) : before_(now) { now = wanted; }
Scheduled::~Scheduled() { now = before_; }

const std::vector<Schedule>& schedules() {
#if RETORT_EMULATION_TSAN || RETORT_EMULATION_ASAN  // neither depends on the order
  static const std::vector<Schedule> all = {{Order::kSeeded, 1}};
#else
  static const std::vector<Schedule> all = {{}, {Order::kReverse, 0}, {Order::kSeeded, 1}};
#endif
  return all;
}

}  // namespace retort::emulation
