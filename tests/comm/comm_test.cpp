#include "comm/comm.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "comm/deadline.h"
#include "core/error.h"
#include "tests/comm/rank_values.h"
#include "tests/comm/subgroups.h"
#include "tests/process_memory.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no CommError";
}

}  // namespace

TEST(SelfComm, EveryCollectiveIsTheIdentity) {
  const auto comm = make_self_comm();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->size(), 1);
  const at::Tensor mine = values(0, 9), before = mine.clone(), out = at::empty({1, 9});
  comm->all_reduce(mine, Reduce::kSum).wait();
  comm->broadcast(mine, 0).wait();
  comm->all_gather(out, mine).wait();
  comm->all_to_all({out[0]}, mine, {0, 9}).wait();
  comm->barrier();
  EXPECT_TRUE(testing::same_bits(mine, before));
  EXPECT_TRUE(testing::same_bits(out[0], before));
  EXPECT_EQ(comm->reduce(2.5, Reduce::kSum), 2.5);
  EXPECT_EQ(comm->broadcast_text("text"), "text");
  EXPECT_THROW(comm->broadcast(mine, 1), ShapeError);
}

TEST(SelfComm, SumsAnyNumberOfLeaves) {
  for (int64_t leaves = 1; leaves <= 9; ++leaves) {
    const at::Tensor nodes_PN = own_subtrees(0, 1, leaves, 2500);
    make_self_comm()->sum_tree(nodes_PN, leaves).wait();
    EXPECT_TRUE(testing::same_bits(nodes_PN[0], tree_over_ranks(static_cast<int>(leaves), 2500, at::kFloat)));
  }
  EXPECT_THROW(make_self_comm()->sum_tree(at::zeros({1, 4}), 3), ShapeError);
}

TEST(ThreadComm, SumsATreeHoweverItsLeavesAreSplit) {
  for (int ranks = 1; ranks <= 8; ++ranks)
    for (int64_t leaves = 1; leaves <= 7; ++leaves)
      for (int64_t count : {0, 5, 10007}) {
        const at::Tensor expected = tree_over_ranks(static_cast<int>(ranks * leaves), count, at::kFloat);
        run_thread_ranks(ranks, [&](Comm& comm) {
          const at::Tensor nodes_PN = own_subtrees(comm.rank(), ranks, leaves, count);
          comm.sum_tree(nodes_PN, leaves).wait();
          EXPECT_TRUE(testing::same_bits(nodes_PN[0], expected))
              << count << " on rank " << comm.rank() << " of " << ranks << " with " << leaves << " leaves";
        });
      }
}

TEST(ThreadComm, SumsAsTheTreeOverTheRanks) {
  for (int ranks : {1, 2, 3, 4, 5})
    run_thread_ranks(ranks, [&](Comm& comm) {
      EXPECT_EQ(comm.size(), ranks);
      for (at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong})
        for (int64_t count : kCounts) {
          const at::Tensor mine = values(comm.rank(), count, dtype);
          comm.all_reduce(mine, Reduce::kSum).wait();
          EXPECT_TRUE(testing::same_bits(mine, tree_over_ranks(ranks, count, dtype)))
              << count << " " << c10::toString(dtype) << " on rank " << comm.rank() << " of " << ranks;
        }
    });
}

TEST(ThreadComm, BroadcastsAndGathers) {
  for (int ranks : {1, 2, 3, 4})
    run_thread_ranks(ranks, [&](Comm& comm) {
      for (int root = 0; root < ranks; ++root)
        for (int64_t count : kCounts) {
          const at::Tensor mine = values(comm.rank(), count);
          comm.broadcast(mine, root).wait();
          EXPECT_TRUE(testing::same_bits(mine, values(root, count)));
        }
      for (int64_t count : kCounts) {
        const at::Tensor all = at::empty({ranks, count});
        comm.all_gather(all, values(comm.rank(), count)).wait();
        for (int peer = 0; peer < ranks; ++peer)
          EXPECT_TRUE(testing::same_bits(all[peer], values(peer, count)));
      }
    });
}

// Runs of any lengths, none and all of it among them.
TEST(ThreadComm, TradesRuns) {
  for (int ranks : {1, 2, 3, 4})
    run_thread_ranks(ranks, [&](Comm& comm) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (int64_t count : kCounts)
          for (const double skew : {0.0, 1.0, 2.0}) {
            const std::vector<int64_t> bounds = run_bounds(ranks, count, skew);
            const auto mine = static_cast<size_t>(comm.rank());
            std::vector<at::Tensor> out;
            for (int peer = 0; peer < ranks; ++peer)
              out.push_back(at::empty({bounds[mine + 1] - bounds[mine]}, dtype));
            comm.all_to_all(out, values(comm.rank(), count, dtype), bounds).wait();
            for (int peer = 0; peer < ranks; ++peer)
              EXPECT_TRUE(testing::same_bits(
                  out[static_cast<size_t>(peer)],
                  values(peer, count, dtype).slice(0, bounds[mine], bounds[mine + 1]).contiguous()));
          }
    });
}

TEST(ThreadComm, RunsThatAreCutOtherwiseAreTold) {
  const auto with = [](std::vector<int64_t> own, std::vector<int64_t> theirs) {
    run_thread_ranks(2, [&](Comm& comm) {
      const std::vector<int64_t>& bounds = comm.rank() == 0 ? own : theirs;
      const auto r = static_cast<size_t>(comm.rank());
      const int64_t length = std::max<int64_t>(0, bounds[r + 1] - bounds[r]);
      comm.all_to_all({at::empty({length}), at::empty({length})}, at::ones({5}), bounds).wait();
    });
  };
  EXPECT_NO_THROW(with({0, 2, 5}, {0, 2, 5}));
  EXPECT_THAT(
      [&] {
        with({0, 2, 5}, {0, 3, 5});
      },
      ThrowsMessage<CommError>(HasSubstr("different collectives")));
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{0, 2, 4}, {0, 6, 5}, {1, 2, 5}})
    EXPECT_THAT([&] { with(wrong, wrong); },
                ThrowsMessage<ShapeError>(HasSubstr("bounds must rise from 0 to 5")));
}

TEST(ThreadComm, SmallConveniences) {
  constexpr int kRanks = 3;
  run_thread_ranks(kRanks, [&](Comm& comm) {
    const int64_t rank = comm.rank();
    EXPECT_EQ(comm.reduce(rank, Reduce::kSum), kRanks * (kRanks - 1) / 2);
    EXPECT_EQ(comm.reduce(static_cast<double>(rank), Reduce::kMax), kRanks - 1.0);
    EXPECT_EQ(comm.reduce(rank, Reduce::kMin), 0);
    EXPECT_EQ(comm.broadcast_text(rank == 1 ? std::string(10000, 'x') + "y" : "", 1),
              std::string(10000, 'x') + "y");
    EXPECT_EQ(comm.broadcast_text(rank == 0 ? "" : "mine"), "");
    EXPECT_TRUE(comm.all_agree(true));
    EXPECT_FALSE(comm.all_agree(rank != 2));
  });
}

TEST(ThreadComm, ManyOperationsMayBeUnderWay) {
  run_thread_ranks(4, [](Comm& comm) {
    std::vector<at::Tensor> tensors;
    std::vector<Pending> pending;
    for (int64_t i = 0; i < 20; ++i) {
      tensors.push_back(values(comm.rank(), 500 * i));
      pending.push_back(comm.all_reduce(tensors.back(), Reduce::kSum));
    }
    for (int64_t i = 19; i >= 0; --i) {
      pending[i].wait();
      pending[i].wait();
      EXPECT_TRUE(testing::same_bits(tensors[i], tree_over_ranks(4, 500 * i, at::kFloat)));
    }
    // Not waited for: the group ends only when all is done.
    comm.all_reduce(tensors[3], Reduce::kMax);
  });
}

TEST(ThreadComm, AnExceptionOnOneRankEndsTheOthersAndComesOut) {
  std::atomic<int> told = 0;
  const auto run = [&] {
    run_thread_ranks(4, [&](Comm& comm) {
      comm.barrier();
      if (comm.rank() == 2) throw DataError("shard 7 is torn");
      try {
        comm.all_reduce(at::ones({100000}), Reduce::kSum).wait();
        comm.barrier();
      } catch (const CommError& error) {
        told += std::string(error.what()).find("rank 2 failed: shard 7 is torn") != std::string::npos;
        throw;
      }
    });
  };
  EXPECT_THAT(run, ThrowsMessage<DataError>("shard 7 is torn"));
  EXPECT_EQ(told, 3);
}

TEST(ThreadComm, ARankThatLeavesEarlyIsNamed) {
  EXPECT_THAT(
      [] {
        run_thread_ranks(2, [](Comm& comm) {
          if (comm.rank() == 0) comm.barrier();
        });
      },
      ThrowsMessage<CommError>(HasSubstr("rank 0 waits for rank 1, which has left the group")));
}

TEST(ThreadComm, DifferentCollectivesAreNamedOnBothSides) {
  struct Row {
    std::function<void(Comm&)> call;
    std::string first, second;  // rank 0's and rank 1's call
  };
  const std::vector<Row> rows = {
      {[](Comm& comm) {
         if (comm.rank() == 0) return comm.barrier();
         comm.all_reduce(at::ones({4}), Reduce::kSum).wait();
       },
       "barrier (number 0)", "all_reduce sum of 4 Float (number 0)"},
      {[](Comm& comm) { comm.all_reduce(at::ones({4 + comm.rank()}), Reduce::kMax).wait(); },
       "all_reduce max of 4 Float", "all_reduce max of 5 Float"},
      {[](Comm& comm) { comm.broadcast(at::ones({2}, comm.rank() ? at::kLong : at::kInt), 0).wait(); },
       "broadcast from rank 0 of 2 Int", "broadcast from rank 0 of 2 Long"},
      {[](Comm& comm) { comm.broadcast(at::ones({2}), comm.rank()).wait(); }, "broadcast from rank 0",
       "broadcast from rank 1"},
      {[](Comm& comm) {  // rank 1 forgets one
         if (comm.rank() == 0) comm.barrier();
         comm.all_gather(at::empty({2, 3}), at::ones({3})).wait();
         comm.barrier();
       },
       "barrier (number 0)", "all_gather of 3 Float (number 0)"},
  };
  for (const Row& row : rows)
    EXPECT_THROW(run_thread_ranks(2,
                                  [&](Comm& comm) {
                                    const std::string text = message_of([&] { row.call(comm); });
                                    EXPECT_THAT(text, AllOf(HasSubstr("rank 0 " + row.first),
                                                            HasSubstr("rank 1 " + row.second)));
                                    throw CommError(text);
                                  }),
                 CommError);
}

TEST(ThreadComm, TradesMessagesAndScattersSums) {
  trade_messages(*make_self_comm());
  for (int ranks : {1, 2, 3, 5}) run_thread_ranks(ranks, trade_messages);
}

TEST(ThreadComm, MessagesThatAreNotExpectedAreTold) {
  const auto with = [](int64_t sent, int64_t expected) {
    run_thread_ranks(2, [&](Comm& comm) {
      std::vector<at::Tensor> send(2), receive(2);
      if (comm.rank() == 0) send[1] = at::zeros({sent});
      if (comm.rank() == 1 && expected > 0) receive[0] = at::zeros({expected});
      comm.exchange(send, receive).wait();
    });
  };
  EXPECT_NO_THROW(with(3, 3));
  for (const int64_t expected : {4, 0})
    EXPECT_THAT([&] { with(3, expected); },
                ThrowsMessage<CommError>(HasSubstr("exchange of 12 bytes for 0")));
  run_thread_ranks(2, [](Comm& comm) {
    std::vector<at::Tensor> send(2), receive(2);
    EXPECT_THROW(comm.exchange({at::Tensor()}, receive), ShapeError);
    send[static_cast<size_t>(comm.rank())] = at::zeros({2});
    EXPECT_THROW(comm.exchange(send, receive), ShapeError) << "to itself";
    send[0] = send[1] = at::zeros({4, 4}).t();
    EXPECT_THROW(comm.exchange(send, receive), ShapeError);
  });
}

TEST(ThreadComm, ABarrierEndsWithItsOwnTime) {
  std::atomic<bool> over = false;
  run_thread_ranks(
      2,
      [&](Comm& comm) {
        if (comm.rank() == 1) {
          while (!over) std::this_thread::yield();
          return;
        }
        EXPECT_THAT(
            message_of([&] { comm.barrier(); }),
            HasSubstr("barrier (number 0) waited 0.2 s for rank 1, which lives (RETORT_COMM_ALONE_TIMEOUT"));
        over = true;
      },
      {.timeout_seconds = 0.05, .alone_seconds = 0.2});
}

TEST(ThreadComm, SubgroupsTradeApart) {
  for (int i = 0; i < 20; ++i) run_thread_ranks(4, trade_in_rows_and_columns);
  EXPECT_EQ(make_self_comm()->subgroup({0})->size(), 1);
}

TEST(ThreadComm, SubgroupsHoldThisRankAndEachOnce) {
  run_thread_ranks(3, [](Comm& comm) {
    for (const std::vector<int>& wrong : {std::vector<int>{},
                                          {(comm.rank() + 1) % 3},
                                          {comm.rank(), comm.rank()},
                                          {comm.rank(), 3},
                                          {comm.rank(), -1}})
      EXPECT_THROW(comm.subgroup(wrong), ShapeError);
  });
  EXPECT_THROW(make_self_comm()->subgroup({1}), ShapeError);
}

// Of what goes wrong in a subgroup all ranks hear, by their numbers in the whole group.
TEST(ThreadComm, SubgroupsDisagreeAloud) {
  EXPECT_THAT(
      [] {
        run_thread_ranks(4, [](Comm& comm) {
          const auto pair = comm.subgroup({comm.rank() / 2 * 2, comm.rank() / 2 * 2 + 1});
          pair->all_reduce(at::ones({comm.rank() == 3 ? 5 : 4}), Reduce::kSum).wait();
          comm.barrier();
        });
      },
      ThrowsMessage<CommError>(
          AllOf(HasSubstr("ranks call different collectives"), HasSubstr("rank 2"), HasSubstr("rank 3"))));
}

TEST(ThreadComm, TheWatchdogNamesWhoIsMissing) {
  std::atomic<bool> over = false;
  CommOptions options;
  options.timeout_seconds = 0.05;
  run_thread_ranks(
      2,
      [&](Comm& comm) {
        if (comm.rank() == 1) {  // hangs outside a collective
          while (!over) std::this_thread::yield();
          return;
        }
        const std::string text = message_of([&] { comm.all_reduce(at::ones({3}), Reduce::kSum).wait(); });
        over = true;
        EXPECT_THAT(text, HasSubstr("rank 0: all_reduce sum of 3 Float (number 0) waited 0.05 s for rank 1"));
      },
      options);
}

TEST(ThreadComm, ABarrierOutlastsTheWatchdog) {
  CommOptions options;
  options.timeout_seconds = 0.02;
  run_thread_ranks(
      2,
      [](Comm& comm) {
        if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
        comm.barrier();
      },
      options);
}

TEST(ThreadComm, RunsTwiceWithTheSameBits) {
  std::vector<at::Tensor> results(2);
  for (at::Tensor& result : results)
    run_thread_ranks(4, [&](Comm& comm) {
      const at::Tensor mine = values(comm.rank(), 30011);
      comm.all_reduce(mine, Reduce::kSum).wait();
      if (comm.rank() == 3) result = mine;
    });
  EXPECT_TRUE(testing::same_bits(results[0], results[1]));
}

TEST(CommOptions, TheTimeOfABarrierComesFromTheEnvironment) {
  EXPECT_EQ(CommOptions().alone_seconds, 86400.0);
  ::setenv("RETORT_COMM_ALONE_TIMEOUT", "7", 1);
  EXPECT_EQ(CommOptions().alone_seconds, 7.0);
  ::unsetenv("RETORT_COMM_ALONE_TIMEOUT");
}

TEST(CommOptions, TimeoutComesFromTheEnvironment) {
  ::unsetenv("RETORT_COMM_TIMEOUT");
  EXPECT_EQ(CommOptions().timeout_seconds, 600.0);
  ::setenv("RETORT_COMM_TIMEOUT", "12.5", 1);
  EXPECT_EQ(CommOptions().timeout_seconds, 12.5);
  ::setenv("RETORT_COMM_TIMEOUT", "", 1);  // as if it were not set
  EXPECT_EQ(CommOptions().timeout_seconds, 600.0);
  for (const char* bad : {"soon", "0", "-1", "5 s", "1e9", "nan"}) {
    ::setenv("RETORT_COMM_TIMEOUT", bad, 1);
    EXPECT_THROW(CommOptions(), ConfigError) << bad;
  }
  ::unsetenv("RETORT_COMM_TIMEOUT");
}

TEST(CommDeathTest, AbortEndsTheProcessWithItsCode) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(make_self_comm()->abort("no way on", 76), ::testing::ExitedWithCode(76), "no way on");
  EXPECT_EXIT(run_thread_ranks(2,
                               [](Comm& comm) {
                                 if (comm.rank() == 1) comm.abort("no way on", 75);
                                 comm.barrier();
                               }),
              ::testing::ExitedWithCode(75), "rank 1: no way on");
}

TEST(CommDeathTest, ADeadlineEndsACallThatCannotBeLeft) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  { const Deadline in_time(60, "joining"); }
  EXPECT_EXIT(
      {
        const Deadline deadline(0.05, "joining the MPI group", 0.0);
        for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
      },
      ::testing::ExitedWithCode(76), "joining the MPI group: waited 0.05 s for the other ranks");
}

// In a process of its own: what is left of its address space holds a few threads' stacks.
TEST(CommDeathTest, ARankWithoutAThreadEndsTheOthers) {
  if (testing::kSanitized) GTEST_SKIP() << "a sanitizer's shadow needs the address space";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto said = [] {
    uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t bytes = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) + (rlim_t{256} << 20);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_AS, &limit);
    try {
      run_thread_ranks(1000, [](Comm& comm) { comm.barrier(); });
    } catch (const CommError& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::_Exit(7);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(said(), ::testing::ExitedWithCode(7), "of 1000 ranks have a thread");
}

}  // namespace retort::comm
