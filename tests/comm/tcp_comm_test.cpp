// Ranks as threads here, each with a group of its own over TCP, as processes have it.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "comm/comm.h"
#include "core/error.h"
#include "tests/comm/free_port.h"
#include "tests/comm/rank_values.h"
#include "tests/comm/subgroups.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Runs body on every rank; what each threw, "" for nothing.
std::vector<std::string> run_tcp_ranks(int ranks, const std::function<void(Comm&)>& body,
                                       double timeout = 60.0) {
  TcpMeeting at{.host = "localhost", .port = free_port(), .size = ranks, .attempt = "0"};
  std::vector<std::string> errors(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      TcpMeeting mine = at;
      mine.rank = rank;
      try {
        const auto comm = make_tcp_comm(mine, {.timeout_seconds = timeout});
        EXPECT_EQ(comm->name(), "tcp");
        EXPECT_EQ(comm->rank(), rank);
        EXPECT_EQ(comm->size(), ranks);
        body(*comm);
      } catch (const Error& error) {
        errors[rank] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

}  // namespace

TEST(TcpComm, SubgroupsTradeApart) {
  EXPECT_THAT(run_tcp_ranks(4, trade_in_rows_and_columns), ::testing::Each(""));
}

TEST(TcpComm, TradesMessagesAndScattersSums) {
  EXPECT_THAT(run_tcp_ranks(3, trade_messages), ::testing::Each(""));
}

TEST(TcpComm, GivesTheBitsOfEveryOtherBackEnd) {
  for (const int ranks : {2, 3, 4})
    EXPECT_EQ(
        run_tcp_ranks(ranks,
                      [&](Comm& comm) {
                        for (const int64_t count : kCounts) {
                          const at::Tensor mine = values(comm.rank(), count);
                          comm.all_reduce(mine, Reduce::kSum).wait();
                          EXPECT_TRUE(testing::same_bits(mine, tree_over_ranks(ranks, count, at::kFloat)));
                          const at::Tensor nodes_PN = own_subtrees(comm.rank(), ranks, 3, count);
                          comm.sum_tree(nodes_PN, 3).wait();
                          EXPECT_TRUE(
                              testing::same_bits(nodes_PN[0], tree_over_ranks(3 * ranks, count, at::kFloat)));
                        }
                      }),
        std::vector<std::string>(ranks));
}

TEST(TcpComm, BroadcastsAndGathers) {
  EXPECT_EQ(run_tcp_ranks(3,
                          [](Comm& comm) {
                            for (const int64_t count : kCounts) {
                              const at::Tensor mine = values(comm.rank(), count), all = at::empty({3, count});
                              comm.all_gather(all, mine).wait();
                              comm.broadcast(mine, 1).wait();
                              EXPECT_TRUE(testing::same_bits(mine, values(1, count)));
                              for (int peer = 0; peer < 3; ++peer)
                                EXPECT_TRUE(testing::same_bits(all[peer], values(peer, count)));
                            }
                            EXPECT_EQ(comm.broadcast_text(comm.rank() == 2 ? "text" : "", 2), "text");
                          }),
            std::vector<std::string>(3));
}

TEST(TcpComm, TradesRuns) {
  EXPECT_EQ(
      run_tcp_ranks(3,
                    [](Comm& comm) {
                      const auto mine = static_cast<size_t>(comm.rank());
                      for (const int64_t count : kCounts) {
                        const std::vector<int64_t> bounds = run_bounds(3, count, 1.0);
                        std::vector<at::Tensor> out;
                        for (int peer = 0; peer < 3; ++peer)
                          out.push_back(at::empty({bounds[mine + 1] - bounds[mine]}));
                        comm.all_to_all(out, values(comm.rank(), count), bounds).wait();
                        for (int peer = 0; peer < 3; ++peer)
                          EXPECT_TRUE(testing::same_bits(
                              out[static_cast<size_t>(peer)],
                              values(peer, count).slice(0, bounds[mine], bounds[mine + 1]).contiguous()));
                      }
                    }),
      std::vector<std::string>(3));
}

// Whether the connection ends before or after something was sent to the rank that leaves.
TEST(TcpComm, NamesARankThatLeaves) {
  for (int time = 0; time < 10; ++time) {
    const std::vector<std::string> errors = run_tcp_ranks(2, [](Comm& comm) {
      if (comm.rank() == 1) throw DataError("shard 7 is torn");
      comm.barrier();
    });
    EXPECT_EQ(errors[1], "shard 7 is torn");
    EXPECT_THAT(errors[0], HasSubstr("rank 0 waits for rank 1, which has left the group"));
  }
}

TEST(TcpComm, TheWatchdogNamesWhoIsMissingAndSparesBarriers) {
  std::atomic<bool> over = false;
  const std::vector<std::string> errors = run_tcp_ranks(
      2,
      [&](Comm& comm) {
        if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(4500));
        comm.barrier();
        while (comm.rank() == 1 && !over) std::this_thread::yield();
        if (comm.rank() == 1) return;
        try {
          comm.all_reduce(at::ones({3}), Reduce::kSum).wait();
        } catch (...) {
          over = true;
          throw;
        }
      },
      3.0);
  EXPECT_THAT(errors[0], HasSubstr("all_reduce sum of 3 Float (number 1) waited 3 s for rank 1"));
}

TEST(TcpComm, SaysWhoDoesNotCome) {
  const TcpMeeting at{.host = "localhost", .port = free_port(), .rank = 0, .size = 3, .attempt = "0"};
  try {
    make_tcp_comm(at, {.timeout_seconds = 0.3});
    FAIL() << "a group without its ranks";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 0 waited 0.3 s for rank 1, 2 to connect"));
  }
}

TEST(TcpComm, NamesWhatIsWrongWithItsMeeting) {
  const auto error = [](const TcpMeeting& at) -> std::string {
    try {
      make_tcp_comm(at, {.timeout_seconds = 0.3});
    } catch (const CommError& error) {
      return error.what();
    }
    return "no CommError";
  };
  EXPECT_THAT(error({.host = "localhost", .rank = 2, .size = 2}), HasSubstr("rank must be in [0, 2), got 2"));
  EXPECT_THAT(error({.host = "localhost", .port = 70000, .size = 2}),
              HasSubstr("port must be in [1, 65535]"));
  EXPECT_THAT(error({.host = "localhost", .port = free_port(), .rank = 1, .size = 2}), HasSubstr("[tcp]"));
}

}  // namespace retort::comm
