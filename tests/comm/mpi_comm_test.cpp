// Run by ctest under mpirun (label mpi); without a launcher each test skips.
#include <gmock/gmock.h>

#include <thread>

#include "comm/bootstrap.h"
#include "comm/comm.h"
#include "core/error.h"
#include "tests/comm/subgroups.h"
#include "tests/testing.h"

namespace retort::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// A process joins its MPI group once: one Comm for all tests of a process.
class MpiComm : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { join(60.0); }
  static void TearDownTestSuite() { comm_.reset(); }
  void SetUp() override {
    if (!comm_) GTEST_SKIP() << "not under mpirun";
  }
  static void join(double timeout_seconds) {
    if (!mpi_launcher(process_environment) || !mpi_missing().empty()) return;
    CommOptions options;
    options.timeout_seconds = timeout_seconds;
    comm_ = make_mpi_comm(options);
  }
  static std::unique_ptr<Comm> comm_;
};
std::unique_ptr<Comm> MpiComm::comm_;

class MpiEndsByAbort : public MpiComm {};
class MpiEndsByMismatch : public MpiComm {};
class MpiEndsByWatchdog : public MpiComm {
 protected:
  static void SetUpTestSuite() { join(0.2); }
};

}  // namespace

TEST_F(MpiComm, GivesTheBitsOfThreadRanks) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (int64_t count : {1, 1024, 1025, 100003, 3000001}) {
      const at::Tensor mine = values(comm_->rank(), count).to(dtype);
      at::Tensor expected;
      run_thread_ranks(comm_->size(), [&](Comm& threads) {
        const at::Tensor theirs = values(threads.rank(), count).to(dtype);
        threads.all_reduce(theirs, Reduce::kSum).wait();
        if (threads.rank() == 0) expected = theirs;
      });
      comm_->all_reduce(mine, Reduce::kSum).wait();
      EXPECT_TRUE(testing::same_bits(mine, expected)) << count;
    }
}

TEST_F(MpiComm, SubgroupsTradeApart) {
  if (comm_->size() != 4) GTEST_SKIP() << "for four ranks";
  trade_in_rows_and_columns(*comm_);
}

TEST_F(MpiComm, TradesMessagesAndScattersSums) { trade_messages(*comm_); }

TEST_F(MpiComm, BroadcastsAndGathers) {
  EXPECT_EQ(comm_->name(), "mpi");
  const int ranks = comm_->size();
  for (int64_t count : {0, 1, 1000, 1025, 100003}) {
    for (int root = 0; root < ranks; ++root) {
      const at::Tensor mine = values(comm_->rank(), count);
      comm_->broadcast(mine, root).wait();
      EXPECT_TRUE(testing::same_bits(mine, values(root, count)));
    }
    const at::Tensor all = at::empty({ranks, count});
    comm_->all_gather(all, values(comm_->rank(), count)).wait();
    for (int peer = 0; peer < ranks; ++peer) EXPECT_TRUE(testing::same_bits(all[peer], values(peer, count)));
  }
  EXPECT_EQ(comm_->broadcast_text(comm_->rank() == 1 ? "recipe" : "", 1), "recipe");
  EXPECT_EQ(comm_->reduce(int64_t{comm_->rank()}, Reduce::kSum), ranks * (ranks - 1) / 2);
  EXPECT_FALSE(comm_->all_agree(comm_->rank() == 0));
}

TEST_F(MpiComm, TradesRuns) {
  const int ranks = comm_->size();
  const auto mine = static_cast<size_t>(comm_->rank());
  for (int64_t count : {0, 1, 1000, 100003}) {
    std::vector<int64_t> bounds;
    for (int64_t r = 0; r <= ranks; ++r) bounds.push_back(count * r * r / (ranks * ranks));
    std::vector<at::Tensor> out;
    for (int peer = 0; peer < ranks; ++peer) out.push_back(at::empty({bounds[mine + 1] - bounds[mine]}));
    comm_->all_to_all(out, values(comm_->rank(), count), bounds).wait();
    for (int peer = 0; peer < ranks; ++peer)
      EXPECT_TRUE(
          testing::same_bits(out[static_cast<size_t>(peer)],
                             values(peer, count).slice(0, bounds[mine], bounds[mine + 1]).contiguous()));
  }
}

TEST_F(MpiComm, ManyOperationsMayBeUnderWay) {
  std::vector<at::Tensor> tensors;
  std::vector<Pending> pending;
  for (int64_t i = 0; i < 20; ++i) {
    tensors.push_back(at::full({20000}, static_cast<float>(comm_->rank() + i)));
    pending.push_back(comm_->all_reduce(tensors.back(), Reduce::kSum));
  }
  const int ranks = comm_->size();
  for (int64_t i = 0; i < 20; ++i) {
    pending[i].wait();
    EXPECT_TRUE(tensors[i].eq(ranks * (ranks - 1) / 2 + ranks * i).all().item<bool>());
  }
}

TEST_F(MpiComm, CountsTheRanksOfThisMachineAndJoinsOnce) {
  const LocalRank local = find_local_rank(*comm_);
  EXPECT_EQ(local.rank, comm_->rank());
  EXPECT_EQ(local.size, comm_->size());
  EXPECT_EQ(find_launch("auto", process_environment).backend, "mpi");
  EXPECT_THAT([] { make_mpi_comm(); }, ThrowsMessage<CommError>(HasSubstr("once")));
}

TEST_F(MpiEndsByAbort, FromOneRankWhileTheOtherWaits) {
  if (comm_->rank() == 1) comm_->abort("no way on", 76);
  comm_->barrier();
  FAIL() << "the barrier came back";
}

TEST_F(MpiEndsByMismatch, NamedOnBothSides) {
  EXPECT_THAT(
      [] {
        if (comm_->rank() == 0) return comm_->barrier();
        comm_->all_reduce(at::ones({4}), Reduce::kSum).wait();
      },
      ThrowsMessage<CommError>(AllOf(HasSubstr("rank 0 barrier (number 0)"),
                                     HasSubstr("rank 1 all_reduce sum of 4 Float (number 0)"))));
  if (HasFailure()) std::_Exit(1);  // else TearDownTestSuite ends the group with 76
}

TEST_F(MpiEndsByWatchdog, NamesTheMissingRankAndSparesBarriers) {
  if (comm_->rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(500));
  comm_->barrier();
  if (comm_->rank() == 1)
    for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));  // until rank 0 ends the group
  EXPECT_THAT([] { comm_->broadcast(at::ones({4}), 1).wait(); },
              ThrowsMessage<CommError>(
                  HasSubstr("broadcast from rank 1 of 4 Float (number 1) waited 0.2 s for rank 1")));
  if (HasFailure()) std::_Exit(1);
}

}  // namespace retort::comm
