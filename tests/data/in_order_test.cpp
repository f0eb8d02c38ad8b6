#include "data/in_order.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "core/random.h"

namespace retort::data {
namespace {

struct Failure {
  int item;
};

// Works on 0 .. count-1, each for a random while, and fails where told to.
struct Squares {
  int count = 200;
  int fail_read = -1, fail_work = -1, fail_write = -1;
  int most = 0;  // items that existed at once
  std::vector<int> written;

  void operator()(int64_t threads) {
    std::atomic<int> alive = 0;
    std::mutex mutex;
    int next = 0;
    const Random random(7, "test/in_order");
    in_order(
        threads,
        [&]() -> std::optional<int> {
          if (next == fail_read) throw Failure{next};
          if (next == count) return std::nullopt;
          const std::scoped_lock lock(mutex);
          most = std::max(most, ++alive);
          return next++;
        },
        [&](int item) {
          if (item == fail_work) throw Failure{item};
          std::this_thread::sleep_for(
              std::chrono::microseconds(random.below(static_cast<uint64_t>(item), 300)));
          return std::make_unique<int>(item * item);  // results may be move-only
        },
        [&](std::unique_ptr<int> result) {
          if (*result == fail_write * fail_write && fail_write >= 0) throw Failure{fail_write};
          written.push_back(*result);
          --alive;
        });
  }
};

}  // namespace

TEST(InOrder, ResultsComeInOrderFromAnyNumberOfThreads) {
  std::vector<int> expected;
  for (int i = 0; i < 200; ++i) expected.push_back(i * i);
  for (const int64_t threads : {1, 2, 5}) {
    Squares run;
    run(threads);
    EXPECT_EQ(run.written, expected) << threads;
    EXPECT_LE(run.most, threads);
  }
}

TEST(InOrder, NothingIsNothing) {
  Squares run;
  run.count = 0;
  run(3);
  EXPECT_TRUE(run.written.empty());
}

TEST(InOrder, TheFirstFailureIsThrownBehindWhatCameBefore) {
  for (const int64_t threads : {1, 3})
    for (int Squares::*where : {&Squares::fail_read, &Squares::fail_work, &Squares::fail_write}) {
      Squares run;
      run.*where = 50;
      if (where == &Squares::fail_read) run.fail_work = 120;  // a later one that is not reached, or not told
      try {
        run(threads);
        ADD_FAILURE() << "nothing was thrown";
      } catch (const Failure& failure) {
        EXPECT_EQ(failure.item, 50);
      }
      EXPECT_EQ(run.written.size(), 50u);
    }
}

}  // namespace retort::data
