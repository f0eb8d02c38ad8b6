#include "launch/signals.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

namespace retort::launch {

namespace {

bool the_first_asks() {
  install_stop_signals();
  if (stop_requested()) return false;
  std::raise(SIGUSR1);
  struct sigaction usr1 = {}, interrupt = {};
  sigaction(SIGUSR1, nullptr, &usr1);
  sigaction(SIGINT, nullptr, &interrupt);
  return stop_requested() && usr1.sa_handler == SIG_DFL && interrupt.sa_handler != SIG_DFL;
}

}  // namespace

// In processes of their own: neither handlers nor the request can be taken back.
TEST(Signals, TheFirstAsksTheSecondKills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // other tests have left threads
  EXPECT_EXIT(std::_Exit(the_first_asks() ? 0 : 1), ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        install_stop_signals();
        std::raise(SIGTERM);
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace retort::launch
