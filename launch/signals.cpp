#include "launch/signals.h"

#include <pthread.h>

#include "core/error.h"

namespace retort::launch {

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
  sigset_t seen;
  sigemptyset(&seen);
  for (;;) {
    int signal = 0;
    if (sigwait(&signals_, &signal) != 0) continue;
    if (over_) return;
    if (sigismember(&seen, signal) == 1) {
      sigset_t one;
      sigemptyset(&one);
      sigaddset(&one, signal);
      pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
      std::raise(signal);
    }
    sigaddset(&seen, signal);
    requested_ = true;
  }
}

void fail_at_file_limits() { std::signal(SIGXFSZ, SIG_IGN); }

}  // namespace retort::launch
