#include "launch/signals.h"

#include <pthread.h>

#include <chrono>
#include <map>

#include "core/error.h"

namespace retort::launch {
namespace {

// Within which a second signal is the first one come twice: GNU timeout and others send one to a process,
// then to its group.
constexpr std::chrono::seconds kSameSignal(1);

void die_of(int signal) {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  std::raise(signal);
}

}  // namespace

StopSignals::StopSignals() {
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals_, signal);
  struct sigaction now = {};
  sigaction(SIGHUP, nullptr, &now);
  if (now.sa_handler != SIG_IGN) sigaddset(&signals_, SIGHUP);  // blocked, an ignored one would come here too
  RETORT_ASSERT(pthread_sigmask(SIG_BLOCK, &signals_, &before_) == 0);
  thread_ = std::thread([this] { wait(); });
}

StopSignals::~StopSignals() {
  over_ = true;
  pthread_kill(thread_.native_handle(), SIGUSR1);  // wakes it
  thread_.join();
  if (!requested_) pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

void StopSignals::wait() {
  using Clock = std::chrono::steady_clock;
  std::map<int, Clock::time_point> first;  // of each kind
  for (;;) {
    int signal = 0;
    if (sigwait(&signals_, &signal) != 0) continue;
    if (over_) return;
    const auto [seen, is_first] = first.emplace(signal, Clock::now());
    if (!is_first && Clock::now() - seen->second > kSameSignal) die_of(signal);
    requested_ = true;
  }
}

void fail_at_file_limits() { std::signal(SIGXFSZ, SIG_IGN); }

}  // namespace retort::launch
