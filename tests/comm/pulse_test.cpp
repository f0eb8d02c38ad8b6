#include "comm/pulse.h"

#include <gmock/gmock.h>

#include <optional>
#include <thread>

namespace retort::comm {
namespace {

using How = MissingRanks::How;
using Wait = Transport::Wait;

Pulse::Clock::time_point ago(double seconds) {
  return Pulse::Clock::now() -
         std::chrono::duration_cast<Pulse::Clock::duration>(std::chrono::duration<double>(seconds));
}

// Whom it calls missing among ranks 1 and 2, and why; nobody where it throws nothing.
std::optional<MissingRanks> missing(const Pulse& pulse, double waited, Wait wait) {
  try {
    pulse.check({1, 2}, ago(waited), wait);
  } catch (const MissingRanks& missing) {
    return missing;
  }
  return std::nullopt;
}

}  // namespace

TEST(Pulse, AWatchedWaitEndsAfterTheTimeout) {
  const Pulse pulse(3, 5, 100);
  EXPECT_FALSE(missing(pulse, 4, Wait::kWatched));
  const auto late = missing(pulse, 6, Wait::kWatched);
  ASSERT_TRUE(late);
  EXPECT_EQ(late->how, How::kWatched);
  EXPECT_EQ(late->ranks, (std::vector<int>{1, 2}));
  EXPECT_EQ(late->seconds, 5);
}

TEST(Pulse, APatientWaitLastsWhileAllAreHeardUpToItsOwnTime) {
  const Pulse pulse(3, 5, 100);  // all have been heard just now
  EXPECT_FALSE(missing(pulse, 99, Wait::kPatient));
  const auto late = missing(pulse, 101, Wait::kPatient);
  ASSERT_TRUE(late);
  EXPECT_EQ(late->how, How::kAlone);
  EXPECT_EQ(late->seconds, 100);
}

// Two are waited for, and one of them lives: it may wait for the other, too.
TEST(Pulse, AWatchedWaitNamesThoseThatAreSilent) {
  Pulse pulse(3, 2.2, 100);
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));
  EXPECT_EQ(missing(pulse, 3, Wait::kWatched)->ranks, (std::vector<int>{1, 2})) << "nobody was heard";
  pulse.heard(1);
  EXPECT_EQ(missing(pulse, 3, Wait::kWatched)->ranks, std::vector<int>{2});
  EXPECT_FALSE(missing(pulse, 2, Wait::kWatched));
  pulse.heard(2);
  EXPECT_EQ(missing(pulse, 3, Wait::kWatched)->ranks, (std::vector<int>{1, 2})) << "both live";
}

TEST(Pulse, ASilentPeerEndsIt) {
  Pulse pulse(3, 0.1, 100);
  EXPECT_EQ(pulse.interval(), 0.025);
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));  // it takes two seconds, whatever the timeout
  EXPECT_FALSE(missing(pulse, 1, Wait::kPatient)) << "this rank has not waited so long";
  pulse.heard(1);
  const auto late = missing(pulse, 3, Wait::kPatient);
  ASSERT_TRUE(late);
  EXPECT_EQ(late->how, How::kSilent);
  EXPECT_EQ(late->ranks, std::vector<int>{2});
  EXPECT_TRUE(pulse.due());
  pulse.sent();
  EXPECT_FALSE(Pulse(1, 100, 100).interval() > 1.0);
}

}  // namespace retort::comm
