#include "comm/flight.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "comm/comm.h"
#include "comm/step_watch.h"
#include "core/error.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

void nap(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace

TEST(Flight, KeepsTheLastOperations) {
  Flight flight(2, 4, "tcp");
  EXPECT_EQ(flight.now(), "before its first collective");
  for (int64_t number = 0; number < 70; ++number) {
    flight.begin({number, "0, 2", "barrier \"x\"", 8});
    if (number < 69) flight.end();
  }
  EXPECT_THAT(flight.now(), HasSubstr("in barrier"));
  EXPECT_THAT(
      flight.json(),
      AllOf(HasSubstr("{\"rank\": 2, \"size\": 4, \"over\": \"tcp\""), Not(HasSubstr("\"number\": 5,")),
            HasSubstr("{\"number\": 6, \"group\": \"0, 2\", \"name\": \"barrier \\\"x\\\"\", \"bytes\": 8"),
            HasSubstr("\"ended\": null}]")));
  flight.end();
  EXPECT_THAT(flight.now(), HasSubstr("outside collectives"));
}

TEST(Flight, IsWrittenWhenAnErrorEndsTheGroup) {
  const testing::TemporaryDirectory folder;
  std::atomic<bool> over = false;
  run_thread_ranks(2,
                   [&](Comm& comm) {
                     comm.flight()->write_to(folder.path());
                     comm.barrier();
                     if (comm.rank() == 1) {
                       while (!over) std::this_thread::yield();
                       return;
                     }
                     EXPECT_THROW(comm.all_reduce(at::ones({3}), Reduce::kSum).wait(), CommError);
                     over = true;
                   },
                   {.timeout_seconds = 0.05});
  EXPECT_THAT(read_text(folder.path() / "flight-rank-0.json"),
              AllOf(HasSubstr("all_reduce sum of 3 Float (number 1) waited 0.05 s for rank 1"),
                    HasSubstr("\"name\": \"barrier (number 0)\", \"bytes\": 0"),
                    HasSubstr("\"bytes\": 12, \"started\"")));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "flight-rank-1.json"));
  run_thread_ranks(1, [&](Comm& comm) { comm.flight()->write_to(folder.path()); });
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "flight-rank-0.json")) << "an older start's";
}

// The others have waited for it at every step, half a second and more each; the run goes on.
TEST(Straggler, Fault10TheRankThatIsSlowIsNamed) {
  run_thread_ranks(3, [](Comm& comm) {
    for (int step = 0; step < 3; ++step) {
      if (comm.rank() == 1) nap(0.55);  // ranks come up a few milliseconds apart
      comm.all_reduce(at::ones({3}), Reduce::kSum).wait();
    }
    comm.reduce(int64_t{1}, Reduce::kSum);  // the last waits are told with the next call
    const auto slow = comm.flight()->straggler();
    ASSERT_TRUE(slow);
    EXPECT_EQ(slow->rank, 1);
    EXPECT_GT(slow->seconds, 1.0);
    EXPECT_GT(slow->of, 1.5);
  });
}

TEST(Flight, WorkThatOneRankDoesAloneIsNoDelay) {
  run_thread_ranks(2, [](Comm& comm) {
    if (comm.rank() == 0) nap(0.5);
    comm.barrier();
    comm.reduce(int64_t{1}, Reduce::kSum);
    comm.reduce(int64_t{1}, Reduce::kSum);
    ASSERT_TRUE(comm.flight()->straggler());
    EXPECT_LT(comm.flight()->straggler()->seconds, 0.4);
  });
}

TEST(StepWatch, SaysWhereALongStepIs) {
  const testing::TemporaryDirectory folder;
  const Path path = folder.path() / "log";
  std::FILE* const out = std::fopen(path.c_str(), "w");
  {
    Log log(out, "", true);
    Flight flight(3, 4, "tcp");
    StepWatch watch(&flight, log, 5, 0.3);
    for (int64_t step = 0; step < 4; ++step) {
      watch.begin(step);
      watch.end();
    }
    flight.begin({7, "", "all_reduce of much (number 7)", 8});
    watch.begin(4);
    nap(1.0);
    watch.end();
    watch.begin(5);
    nap(0.1);
    watch.end();
  }
  std::fclose(out);
  EXPECT_THAT(read_text(path),
              AllOf(HasSubstr("warning: rank 3: step 4 has lasted"),
                    HasSubstr("it is in all_reduce of much (number 7) for"), Not(HasSubstr("step 5"))));
}

TEST(StepWatch, KnowsNoUsualStepAtFirst) {
  const testing::TemporaryDirectory folder;
  const Path path = folder.path() / "log";
  std::FILE* const out = std::fopen(path.c_str(), "w");
  {
    Log log(out);
    StepWatch watch(nullptr, log, 1, 0.05);
    watch.begin(0);
    nap(0.3);
    watch.end();
  }
  std::fclose(out);
  EXPECT_EQ(read_text(path), "");
}

}  // namespace retort::comm
