#include "launch/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace retort::launch {
namespace {

// In processes of their own: here, earlier tests have left threads that do not block the signals.
class StopSignalsDeathTest : public ::testing::Test {
 protected:
  StopSignalsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  static void send(int signal, const StopSignals& signals) {
    ::kill(::getpid(), signal);
    while (!signals.requested()) std::this_thread::yield();
  }
};

TEST_F(StopSignalsDeathTest, TheFirstAsksAndInstallsNoHandler) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1})
    EXPECT_EXIT(
        {
          const StopSignals signals;
          const bool before = signals.requested();
          struct sigaction now = {};
          sigaction(signal, nullptr, &now);
          send(signal, signals);
          std::_Exit(!before && now.sa_handler == SIG_DFL ? 0 : 1);
        },
        ::testing::ExitedWithCode(0), "");
}

TEST_F(StopSignalsDeathTest, TheSecondOfItsKindKills) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        send(SIGTERM, signals);
        send(SIGINT, signals);
        send(SIGTERM, signals);
        ::pause();
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST_F(StopSignalsDeathTest, AfterItTheFirstKills) {
  EXPECT_EXIT(
      {
        { const StopSignals signals; }
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace retort::launch
