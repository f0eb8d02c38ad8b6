// Two versions of one thing, timed fairly: interleaved, so that both meet the same neighbours, and reported
// as the median of paired ratios with its interquartile range, of wall time and of the process's CPU time
// (which a busy neighbour disturbs less). Absolute times are for orientation.
#pragma once

#include <time.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace retort::bench {

struct Quartiles {
  double low = 0, median = 0, high = 0;
};

inline Quartiles quartiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
  };
  return {at(0.25), at(0.5), at(0.75)};
}

struct Times {
  double wall_ms = 0, cpu_ms = 0;  // cpu: of all threads
};

struct Paired {
  Times ours, peer;     // medians
  Quartiles wall, cpu;  // ours / peer
};

inline double clock_ms(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

inline Times time_once(const std::function<void()>& work) {
  const double wall = clock_ms(CLOCK_MONOTONIC), cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
  work();
  return {clock_ms(CLOCK_MONOTONIC) - wall, clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu};
}

// Where the two sides' data lies in memory is luck that lasts as long as the data does (some percent, with
// megabytes of it). `renew` makes new ones: it is called before the first pair and every fifth after it.
inline Paired time_pairs(
    const std::function<void()>& ours, const std::function<void()>& peer, int pairs,
    const std::function<void()>& renew = [] {}) {
  std::vector<double> ours_wall, ours_cpu, peer_wall, peer_cpu, wall, cpu;
  for (int i = 0; i < pairs; ++i) {
    if (i % 5 == 0) renew(), ours(), peer();  // and warm up
    Times mine, other;
    if (i % 2 == 0)
      mine = time_once(ours), other = time_once(peer);
    else
      other = time_once(peer), mine = time_once(ours);
    ours_wall.push_back(mine.wall_ms), ours_cpu.push_back(mine.cpu_ms);
    peer_wall.push_back(other.wall_ms), peer_cpu.push_back(other.cpu_ms);
    wall.push_back(mine.wall_ms / other.wall_ms), cpu.push_back(mine.cpu_ms / other.cpu_ms);
  }
  return {{quartiles(ours_wall).median, quartiles(ours_cpu).median},
          {quartiles(peer_wall).median, quartiles(peer_cpu).median},
          quartiles(wall),
          quartiles(cpu)};
}

}  // namespace retort::bench
