#include "launch/signals.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>

#include "core/error.h"
#include "core/file.h"
#include "tests/testing.h"

namespace retort::launch {
namespace {

// In processes of their own: here, earlier tests have left threads that do not block the signals.
class StopSignalsDeathTest : public ::testing::Test {
 protected:
  StopSignalsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  static constexpr std::chrono::milliseconds kGrace{1200};  // a second, and what a clock may be late

  static void send(int signal, const StopSignals& signals) {
    ::kill(::getpid(), signal);
    while (!signals.requested()) std::this_thread::yield();
  }
};

TEST_F(StopSignalsDeathTest, TheFirstAsksAndInstallsNoHandler) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1})
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
        std::this_thread::sleep_for(kGrace);
        send(SIGINT, signals);
        send(SIGTERM, signals);
        ::pause();
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

// GNU timeout signals its child, then the group that the child is in.
TEST_F(StopSignalsDeathTest, OneThatComesTwiceAtOnceIsTheFirst) {
  EXPECT_EXIT(
      {
        const StopSignals signals;
        for (int i = 0; i < 3; ++i) {
          send(SIGTERM, signals);
          std::this_thread::sleep_for(std::chrono::milliseconds(20));  // they are not merged
        }
        std::_Exit(75);
      },
      ::testing::ExitedWithCode(75), "");
}

TEST_F(StopSignalsDeathTest, AfterItTheFirstKills) {
  EXPECT_EXIT(
      {
        { const StopSignals signals; }
        std::raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

// srun ends all ranks when the first has ended with 75.
TEST_F(StopSignalsDeathTest, AfterARequestNoneChangesTheExitCode) {
  EXPECT_EXIT(
      {
        {
          const StopSignals signals;
          send(SIGUSR1, signals);
        }
        for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) ::kill(::getpid(), signal);
        std::_Exit(75);
      },
      ::testing::ExitedWithCode(75), "");
}

// nohup: the terminal may go, the run goes on.
TEST_F(StopSignalsDeathTest, AHangUpThatIsIgnoredStaysSo) {
  EXPECT_EXIT(
      {
        std::signal(SIGHUP, SIG_IGN);
        const StopSignals signals;
        ::kill(::getpid(), SIGHUP);
        ::usleep(20000);
        std::_Exit(signals.requested() ? 1 : 0);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(StopSignalsDeathTest, AFileBeyondTheLimitIsAnError) {
  const retort::testing::TemporaryDirectory directory;
  EXPECT_EXIT(
      {
        fail_at_file_limits();
        rlimit limit = {};
        limit.rlim_cur = limit.rlim_max = 4096;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
          write_durably(local_files(), directory / "large", std::string(10000, 'x'));
          std::_Exit(1);
        } catch (const IoError& error) {
          const bool said = std::string(error.what()).find("File too large") != std::string::npos;
          std::_Exit(said && !std::filesystem::exists(directory / "large") ? 0 : 2);
        }
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace retort::launch
