// The order in which emulated kernels run: a kernel must give the same bits under all of them. What the
// scheduler finds wrong (a divergent barrier, a shuffle whose lanes do not meet, shared memory written past
// its end, a misaligned vector) ends the launch with an EmulationError that names block, thread and line.
// Each OS thread has its own emulation and its own order.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace retort::emulation {

class EmulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order {
  kForward,  // blocks, warps and lanes from the first; a warp runs as far as it can
  kReverse,  // from the last
  kSeeded,   // warps and lanes are interleaved at random, blocks are shuffled
};
struct Schedule {
  Order order = Order::kForward;
  uint64_t seed = 0;
  std::string name() const;
};

const Schedule& schedule();  // of this OS thread

// Launches of this OS thread follow `schedule` while the object lives.
class Scheduled {
 public:
  explicit Scheduled(const Schedule& schedule);
  ~Scheduled();
  Scheduled(const Scheduled&) = delete;
  Scheduled& operator=(const Scheduled&) = delete;

 private:
  Schedule before_;
};

// Those that tests go through. Under ThreadSanitizer one is enough: it judges by what is ordered, not by
// what happened first.
const std::vector<Schedule>& schedules();

}  // namespace retort::emulation
