#include "launch/signals.h"

#include <gtest/gtest.h>

#include <csignal>

namespace retort::launch {

TEST(Signals, TheFirstAsksTheSecondKills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // other tests have left threads
  install_stop_signals();
  EXPECT_FALSE(stop_requested().load());
  std::raise(SIGUSR1);
  EXPECT_TRUE(stop_requested().load());
  struct sigaction now = {};
  sigaction(SIGUSR1, nullptr, &now);
  EXPECT_EQ(now.sa_handler, SIG_DFL);
  sigaction(SIGINT, nullptr, &now);
  EXPECT_NE(now.sa_handler, SIG_DFL);
  EXPECT_EXIT(
      {
        std::raise(SIGTERM);
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace retort::launch
