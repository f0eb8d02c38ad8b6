#include "comm/queued_comm.h"

#include <gmock/gmock.h>

#include <atomic>
#include <cstring>

#include "comm/transport.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// What a test sees of a transport that the worker owns.
struct Seen {
  std::atomic<int> exchanges = 0;
  std::atomic<bool> interrupted = false, ended = false;
  std::atomic<int> patient = 0;    // exchanges without the watchdog
  std::atomic<int> fails_at = -1;  // the exchange that finds rank 1 missing
};

// A peer, rank 1, that sends back what it is sent: it calls what we call with the data that we have.
class EchoTransport final : public Transport {
 public:
  explicit EchoTransport(Seen& seen) : seen_(seen) {}
  ~EchoTransport() override { seen_.ended = true; }
  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string name() const override { return "echo"; }
  void exchange(const std::vector<std::span<const std::byte>>& send,
                const std::vector<std::span<std::byte>>& receive, Wait wait) override {
    if (seen_.exchanges++ == seen_.fails_at) throw MissingRanks{{1}, 5.0};
    seen_.patient += wait == Wait::kPatient;
    ASSERT_EQ(send[1].size(), receive[1].size());
    std::memcpy(receive[1].data(), send[1].data(), send[1].size());
  }
  void interrupt() noexcept override { seen_.interrupted = true; }
  [[noreturn]] void abort(int) override { throw InternalError("not used here"); }

 private:
  Seen& seen_;
};

std::unique_ptr<QueuedComm> echo(Seen& seen) {
  return std::make_unique<QueuedComm>([&] { return std::make_unique<EchoTransport>(seen); });
}

}  // namespace

TEST(QueuedComm, BuildsCollectivesFromExchanges) {
  Seen seen;
  {
    const auto comm = echo(seen);
    EXPECT_EQ(comm->name(), "echo");
    EXPECT_EQ(comm->size(), 2);
    EXPECT_EQ(comm->reduce(int64_t{21}, Reduce::kSum), 42);
    EXPECT_EQ(seen.exchanges, 2);  // the call, and one round of data: it is small
    EXPECT_EQ(seen.patient, 0);
    comm->barrier();
    EXPECT_EQ(seen.patient, 1);
    EXPECT_EQ(seen.exchanges, 3);
    const at::Tensor rows = at::empty({2, 3}, at::kInt);
    comm->all_gather(rows, at::full({3}, 7, at::kInt)).wait();
    EXPECT_TRUE(rows.eq(7).all().item<bool>());
  }
  EXPECT_TRUE(seen.ended);
  EXPECT_FALSE(seen.interrupted);
}

TEST(QueuedComm, WaitsAtTheCallWhereOverlapIsOff) {
  Seen seen;
  ::setenv("RETORT_COMM_OVERLAP", "off", 1);
  const auto comm = echo(seen);
  ::unsetenv("RETORT_COMM_OVERLAP");
  for (int call = 1; call <= 20; ++call) {
    comm->all_reduce(at::ones({5}), Reduce::kSum);
    EXPECT_EQ(seen.exchanges, 2 * call);
  }
}

TEST(QueuedComm, NamesOperationNumberAndMissingRanks) {
  Seen seen;
  const auto comm = echo(seen);
  comm->barrier();
  seen.fails_at = 1;
  EXPECT_THAT([&] { comm->all_reduce(at::ones({5}), Reduce::kMax).wait(); },
              ThrowsMessage<CommError>(
                  HasSubstr("rank 0: all_reduce max of 5 Float (number 1) waited 5 s for rank 1")));
}

TEST(QueuedComm, IsUnusableAfterAnError) {
  Seen seen;
  const auto comm = echo(seen);
  seen.fails_at = 0;
  const Pending first = comm->broadcast(at::ones({2}), 0),
                second = comm->all_reduce(at::ones({2}), Reduce::kSum);
  EXPECT_THROW(second.wait(), CommError);
  EXPECT_THROW(first.wait(), CommError);
  EXPECT_THROW(first.wait(), CommError);  // waiting twice is fine
  EXPECT_THAT([&] { comm->barrier(); },
              ThrowsMessage<CommError>(HasSubstr("broadcast from rank 0 of 2 Float")));
  EXPECT_EQ(seen.exchanges, 1);
}

TEST(QueuedComm, AnExceptionThatDestroysItInterruptsItsPeers) {
  Seen seen;
  EXPECT_THROW(
      {
        const auto comm = echo(seen);
        throw DataError("elsewhere");
      },
      DataError);
  EXPECT_TRUE(seen.interrupted);
  EXPECT_TRUE(seen.ended);
}

TEST(QueuedComm, FailsWithItsTransport) {
  EXPECT_THAT([] { QueuedComm([]() -> std::unique_ptr<Transport> { throw CommError("no network"); }); },
              ThrowsMessage<CommError>("no network"));
}

TEST(QueuedComm, RefusesTensorsThatItCannotSend) {
  Seen seen;
  const auto comm = echo(seen);
  const at::Tensor view = at::zeros({4, 6}).slice(1, 0, 3);
  EXPECT_THAT(
      [&] { comm->all_reduce(view, Reduce::kSum); },
      ThrowsMessage<ShapeError>(HasSubstr("[all_reduce] needs a dense CPU tensor, got a strided view")));
  EXPECT_THROW(comm->broadcast(at::Tensor(), 0), ShapeError);
  EXPECT_THROW(comm->broadcast(at::zeros({2}), 2), ShapeError);
  EXPECT_THROW(comm->all_reduce(at::zeros({2}, at::kByte), Reduce::kSum), ShapeError);
  EXPECT_THROW(comm->all_gather(at::zeros({3}), at::zeros({2})), ShapeError);
  EXPECT_EQ(seen.exchanges, 0);
}

}  // namespace retort::comm
