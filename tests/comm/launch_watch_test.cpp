#include "comm/launch_watch.h"

#include <gmock/gmock.h>

#include <atomic>

#include "core/error.h"

namespace retort::comm {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kTimeout = 0.2;  // seconds

// What the library beside a device answers, and what the device does.
struct Fake {
  std::atomic<bool> busy = false, failed = false, begun = false, done = false, broken = false;
  std::atomic<int> aborts = 0, calls_after = 0;
};

class FakeLibrary final : public LaunchWatch::Library {
 public:
  explicit FakeLibrary(Fake& fake) : fake_(fake) {}
  LaunchWatch::State state() override {
    if (fake_.aborts > 0) ++fake_.calls_after;
    return {fake_.busy, fake_.failed ? "remote process exited" : ""};
  }
  void abort() override { ++fake_.aborts; }

 private:
  Fake& fake_;
};

// A library that is busy for a time, and how often it is asked between two moments of it.
struct BusyFor {
  std::chrono::microseconds least{0}, most{0};
  std::chrono::steady_clock::time_point start = {};
  int asked = 0;
  void begin() { start = std::chrono::steady_clock::now(); }
};

class BusyLibrary final : public LaunchWatch::Library {
 public:
  explicit BusyLibrary(BusyFor& of) : of_(of) {}
  LaunchWatch::State state() override {
    const auto since = std::chrono::steady_clock::now() - of_.start;
    if (since >= of_.most) return {};
    if (since >= of_.least) ++of_.asked;
    return {.busy = true};
  }
  void abort() override { ADD_FAILURE() << "nothing is wrong"; }

 private:
  BusyFor& of_;
};

class LaunchWatchTest : public ::testing::Test {
 protected:
  ~LaunchWatchTest() override { EXPECT_EQ(fake_.calls_after, 0) << "of a library that was aborted"; }

  LaunchWatch::Work work(const std::string& name) {
    return {name, [this] { return fake_.begun.load(); },
            [this] {
              check<CommError>(!fake_.broken, "cudaEventQuery failed: an illegal memory access");
              return fake_.done.load();
            }};
  }
  std::string error_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const CommError& error) {
      return error.what();
    }
    return "no error";
  }

  Fake fake_;
  std::vector<std::string> told_;
  LaunchWatch watch_{std::make_unique<FakeLibrary>(fake_), 3, kTimeout,
                     [this](const std::string& why) { told_.push_back(why); }};
};

}  // namespace

TEST_F(LaunchWatchTest, WhatIsDoneIsDone) {
  int calls = 0;
  for (int i = 0; i < 3; ++i) {
    watch_.launch("all_reduce", [&] { ++calls; });
    watch_.add(work("all_reduce"));
  }
  fake_.begun = fake_.done = true;
  EXPECT_TRUE(watch_.drain());
  watch_.check();
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(fake_.aborts, 0);
}

TEST_F(LaunchWatchTest, Fault07AnErrorThatNobodyAskedForEndsTheGroupAndNamesTheOperation) {
  watch_.add(work("broadcast of 8 Float (number 4)"));
  watch_.add(work("all_gather of 9 Float (number 5)"));
  fake_.failed = true;
  EXPECT_FALSE(watch_.drain());
  const std::string why = "[comm] rank 3: broadcast of 8 Float (number 4): remote process exited";
  EXPECT_EQ(error_of([&] { watch_.check(); }), why);
  EXPECT_EQ(error_of([&] { watch_.launch("the next", [] { ADD_FAILURE() << "launched"; }); }), why);
  EXPECT_THAT(told_, ElementsAre(why));
  watch_.give_up("a second end");
  EXPECT_EQ(fake_.aborts, 1);
}

TEST_F(LaunchWatchTest, Fault07APeerThatDoesNotComeEndsTheGroupInTime) {
  fake_.begun = true;
  watch_.add(work("all_reduce sum of 2000 Float (number 41)"));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(watch_.drain());
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::duration<double>(kTimeout));
  EXPECT_THAT(
      error_of([&] { watch_.check(); }),
      HasSubstr("rank 3: all_reduce sum of 2000 Float (number 41): waited 0.2 s for the other ranks"));
  EXPECT_EQ(fake_.aborts, 1);
}

// What the device computes before it comes to a collective is nobody's wait.
TEST_F(LaunchWatchTest, TimeCountsFromWhereTheDeviceComesToIt) {
  watch_.add(work("all_reduce"));
  std::this_thread::sleep_for(std::chrono::duration<double>(3 * kTimeout));
  watch_.check();
  fake_.begun = fake_.done = true;
  EXPECT_TRUE(watch_.drain());
}

TEST_F(LaunchWatchTest, ALaunchWaitsForTheLibraryAndNoLongerThanTheTimeout) {
  Fake slow;
  LaunchWatch patient(std::make_unique<FakeLibrary>(slow), 0, 60, {});
  slow.busy = true;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    slow.done = true;
    slow.busy = false;
  });
  patient.launch("the first", [] {});
  EXPECT_TRUE(slow.done);
  later.join();
  fake_.busy = true;
  EXPECT_THAT(error_of([&] { watch_.launch("the second", [] {}); }),
              HasSubstr("rank 3: the second: waited 0.2 s for the other ranks to launch it"));
  EXPECT_EQ(fake_.aborts, 1);
}

// A nap a launch would be most of its time; a busy loop for as long as another rank is away would take a processor.
TEST_F(LaunchWatchTest, AShortLaunchIsNotSleptThroughAndALongOneIs) {
  using namespace std::chrono_literals;
  int often = 0;
  for (int i = 0; i < 5000 && often <= 5; ++i) {  // on a machine that others use too
    BusyFor brief{.most = 150us};
    LaunchWatch(std::make_unique<BusyLibrary>(brief), 0, 60, {}).launch("a launch", [&] { brief.begin(); });
    often = std::max(often, brief.asked);
  }
  EXPECT_GT(often, 5) << "naps of 100 us leave time for two";
  BusyFor away{.least = 1ms, .most = 30ms};
  LaunchWatch(std::make_unique<BusyLibrary>(away), 0, 60, {}).launch("a launch", [&] { away.begin(); });
  EXPECT_LE(away.asked, (away.most - away.least) / 100us + 1);
}

TEST_F(LaunchWatchTest, AnErrorOfALaunchOrOfTheDeviceEndsTheGroup) {
  fake_.broken = true;
  watch_.add(work("all_reduce"));
  EXPECT_FALSE(watch_.drain());
  EXPECT_THAT(error_of([&] { watch_.check(); }), HasSubstr("all_reduce: cudaEventQuery failed"));
  Fake other;
  LaunchWatch joining(std::make_unique<FakeLibrary>(other), 0, kTimeout, {});
  other.failed = true;
  EXPECT_EQ(error_of([&] { joining.launch("joining", [] {}); }),
            "[comm] rank 0: joining: remote process exited");
  LaunchWatch refused(std::make_unique<FakeLibrary>(other), 0, kTimeout, {});
  other.failed = false, other.aborts = 0;
  EXPECT_EQ(error_of([&] { refused.launch("a launch", [] { fail<CommError>("invalid usage"); }); }),
            "[comm] rank 0: a launch: invalid usage");
  EXPECT_EQ(other.aborts, 1);
}

}  // namespace retort::comm
