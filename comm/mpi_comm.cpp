// MPI as a Transport: messages between pairs of ranks, polled, so that a watchdog can end the wait.
// Every MPI call of the process is made by QueuedComm's worker thread. Signs of life are messages of a byte in a
// communicator of their own. A part of libretort_mpi.so (comm/mpi.cpp).
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "comm/deadline.h"
#include "comm/pulse.h"
#include "comm/transport.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using Clock = Pulse::Clock;

constexpr size_t kMaxMessage = size_t{1} << 30;  // MPI-3 counts in int
constexpr auto kNap = std::chrono::microseconds(100);
// How long to poll without a nap: what a megabyte takes at 1 GB/s.
constexpr auto kPatience = std::chrono::milliseconds(1);

void must(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail<CommError>("[mpi] {} failed: {}", call, std::string_view(text, length));
}

class MpiTransport final : public Transport {
 public:
  MpiTransport(double timeout, double alone) : MpiTransport(timeout) {
    pulse_.emplace(size_, timeout, alone);
    outgoing_.assign(static_cast<size_t>(size_), MPI_REQUEST_NULL);
    incoming_ = outgoing_;
    signs_.resize(static_cast<size_t>(size_));
    for (int peer = 0; peer < size_; ++peer)
      if (peer != rank_) expect_sign(peer);
  }

  ~MpiTransport() override {
    if (interrupted_) {  // the peers wait, now or soon, for messages that will not come
      fmt::print(stderr, "rank {}: leaves the MPI group after an error, and ends it\n", rank_);
      std::fflush(stderr);
      MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kCommunication));
    }
    for (auto* requests : {&incoming_, &outgoing_})
      for (MPI_Request& one : *requests) {
        if (one == MPI_REQUEST_NULL) continue;
        MPI_Cancel(&one);
        MPI_Request_free(&one);
      }
    MPI_Finalize();  // with the communicators
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "mpi"; }

  void exchange(const std::vector<std::span<const std::byte>>& send,
                const std::vector<std::span<std::byte>>& receive, Wait how) override {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;  // of each request
    size_t bytes = 0;
    const auto post = [&](int peer, size_t size, auto&& start) {
      for (size_t at = 0; at < size; at += kMaxMessage) {
        peers.push_back(peer);
        must(start(at, static_cast<int>(std::min(kMaxMessage, size - at)), &requests.emplace_back()),
             "MPI_Isend/recv");
      }
      bytes += size;
    };
    for (int step = 1; step < size_; ++step) {
      const int peer = (rank_ + step) % size_;
      post(peer, receive[peer].size(), [&](size_t at, int count, MPI_Request* request) {
        return MPI_Irecv(receive[peer].data() + at, count, MPI_BYTE, peer, 0, comm_, request);
      });
    }
    for (int step = 1; step < size_; ++step) {
      const int peer = (rank_ + step) % size_;
      post(peer, send[peer].size(), [&](size_t at, int count, MPI_Request* request) {
        return MPI_Isend(send[peer].data() + at, count, MPI_BYTE, peer, 0, comm_, request);
      });
    }
    wait(requests, peers, kPatience + std::chrono::nanoseconds(bytes), how);
  }

  void beat() override {
    pulse_->sent();
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      const auto p = static_cast<size_t>(peer);
      for (int heard = 1; heard != 0;) {
        must(MPI_Test(&incoming_[p], &heard, MPI_STATUS_IGNORE), "MPI_Test");
        if (heard == 0) break;
        pulse_->heard(peer);
        expect_sign(peer);
      }
      int gone = 1;  // one that has not gone yet says enough
      must(MPI_Test(&outgoing_[p], &gone, MPI_STATUS_IGNORE), "MPI_Test");
      if (gone) must(MPI_Isend(&kSign, 1, MPI_BYTE, peer, 0, lives_, &outgoing_[p]), "MPI_Isend");
    }
  }
  double beat_seconds() const override { return pulse_->interval(); }
  void interrupt() noexcept override { interrupted_ = true; }

  [[noreturn]] void abort(int exit_code) override {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);
  }

 private:
  void wait(std::vector<MPI_Request>& requests, const std::vector<int>& peers, Clock::duration patience,
            Wait how) {
    const Clock::time_point start = Clock::now();
    for (;;) {
      int done = 0;
      must(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
           "MPI_Testall");
      if (done) return;
      check<CommError>(!interrupted_, "[mpi] rank {} was interrupted", rank_);
      const Clock::duration waited = Clock::now() - start;
      if (pulse_->due()) {
        beat();
        pulse_->check(missing(requests, peers), start, how);
      }
      if (waited < patience)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(kNap);
    }
  }

  static std::vector<int> missing(std::vector<MPI_Request>& requests, const std::vector<int>& peers) {
    std::set<int> ranks;
    for (size_t i = 0; i < requests.size(); ++i) {
      int done = 0;
      must(MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (!done) ranks.insert(peers[i]);
    }
    return {ranks.begin(), ranks.end()};
  }

  explicit MpiTransport(double timeout) {
    const Deadline deadline(timeout, "joining the MPI group");
    int before = 0, provided = 0;
    MPI_Initialized(&before);
    check<CommError>(!before, "[mpi] a process joins its MPI group once, and this one has joined already");
    must(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
    check<CommError>(provided >= MPI_THREAD_SERIALIZED, "[mpi] needs MPI_THREAD_SERIALIZED, got level {}",
                     provided);
    for (MPI_Comm* one : {&comm_, &lives_}) {
      must(MPI_Comm_dup(MPI_COMM_WORLD, one), "MPI_Comm_dup");
      must(MPI_Comm_set_errhandler(*one, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    }
    must(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    must(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }

  void expect_sign(int peer) {
    const auto p = static_cast<size_t>(peer);
    must(MPI_Irecv(&signs_[p], 1, MPI_BYTE, peer, 0, lives_, &incoming_[p]), "MPI_Irecv");
  }

  static constexpr char kSign = 0;
  MPI_Comm comm_ = MPI_COMM_NULL, lives_ = MPI_COMM_NULL;
  std::optional<Pulse> pulse_;
  std::vector<MPI_Request> outgoing_, incoming_;  // signs of life, by peer
  std::vector<char> signs_;
  int rank_ = 0, size_ = 1;
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

}  // namespace retort::comm

// comm/mpi.cpp opens the library and owns what this makes.
extern "C" retort::comm::Transport* retort_mpi_transport(double timeout_seconds, double alone_seconds) {
  return new retort::comm::MpiTransport(timeout_seconds, alone_seconds);
}
extern "C" const char* retort_mpi_stamp() { return RETORT_PLUGIN_STAMP; }
