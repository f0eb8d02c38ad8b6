// When a rank shows its peers that it lives, and when one that is waited for counts as missing: a watched wait after the
// timeout, a patient one after CommOptions::alone_seconds, or once the peer has given no sign of life for the timeout.
// Of several that a watched wait is for, those that give none are named, since the others may wait for them. One thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "comm/transport.h"

namespace retort::comm {

class Pulse {
 public:
  using Clock = std::chrono::steady_clock;

  Pulse(int ranks, double timeout, double alone)
      : timeout_(timeout), alone_(alone), heard_(static_cast<size_t>(ranks), Clock::now()) {}

  double interval() const { return std::min(1.0, timeout_ / 4); }
  bool due() const { return Clock::now() - sent_ > std::chrono::duration<double>(interval()); }
  void sent() { sent_ = Clock::now(); }
  void heard(int peer) { heard_[static_cast<size_t>(peer)] = Clock::now(); }
  // Throws MissingRanks where that is so of those that have been waited for since `start`.
  void check(const std::vector<int>& peers, Clock::time_point start, Transport::Wait wait) const {
    using How = MissingRanks::How;
    const auto longer = [now = Clock::now()](Clock::time_point since, double seconds) {
      return now - since > std::chrono::duration<double>(seconds);
    };
    const auto silent_for = [&](double silence) {
      std::vector<int> out;
      for (const int peer : peers)
        if (longer(heard_[static_cast<size_t>(peer)], silence)) out.push_back(peer);
      return out;
    };
    if (wait == Transport::Wait::kWatched) {
      if (!longer(start, timeout_)) return;
      std::vector<int> silent = silent_for(std::max(timeout_ / 2, kLeastSilence));
      throw MissingRanks{silent.empty() ? peers : std::move(silent), timeout_, How::kWatched};
    }
    // A machine that is busy for a moment is not gone.
    const double silence = std::max(timeout_, kLeastSilence);
    if (std::vector<int> silent = silent_for(silence); longer(start, silence) && !silent.empty())
      throw MissingRanks{std::move(silent), silence, How::kSilent};
    if (longer(start, alone_)) throw MissingRanks{peers, alone_, How::kAlone};
  }

 private:
  static constexpr double kLeastSilence = 2.0;
  double timeout_, alone_;
  Clock::time_point sent_ = {};
  std::vector<Clock::time_point> heard_;
};

}  // namespace retort::comm
