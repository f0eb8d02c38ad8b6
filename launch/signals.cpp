#include "launch/signals.h"

#include <csignal>

#include "core/error.h"

namespace retort::launch {
namespace {

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // the only kind a handler may touch

void on_signal(int) { stop.store(true); }

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) RETORT_ASSERT(sigaction(signal, &action, nullptr) == 0);
}

const std::atomic<bool>& stop_requested() { return stop; }

}  // namespace retort::launch
