// Ranks as threads of one process: peers read each other's buffers.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "comm/comm.h"
#include "comm/queued_comm.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using Sends = std::vector<std::span<const std::byte>>;
using Receives = std::vector<std::span<std::byte>>;

// A letter box for each pair of ranks. Who waits is woken once: by the last letter that it expects, and by the taking of
// the last one that it has sent.
class ThreadGroup {
 public:
  ThreadGroup(int ranks, const CommOptions& options)
      : timeout_(options.timeout_seconds),
        alone_(options.alone_seconds),
        boxes_(static_cast<size_t>(ranks) * static_cast<size_t>(ranks)),
        ranks_(static_cast<size_t>(ranks)) {}

  int size() const { return static_cast<int>(ranks_.size()); }

  void exchange(int rank, const Sends& send, const Receives& receive, Transport::Wait wait) {
    std::unique_lock lock(mutex_);
    try {
      post(rank, send);
      expect(rank, receive);
      await(
          lock, rank, wait, [&](int peer) { return box(peer, rank).expected; }, of(rank).expected);
      take(lock, rank, receive);
      await(
          lock, rank, wait, [&](int peer) { return box(rank, peer).full; }, of(rank).untaken);
    } catch (...) {
      withdraw(lock, rank);
      throw;
    }
  }

  void fail(const std::string& why) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = why;
    for (Rank& one : ranks_) one.changed.notify_all();
  }

  void leave(int rank) {
    std::lock_guard lock(mutex_);
    of(rank).left = true;
    for (Rank& one : ranks_) one.changed.notify_all();
  }

 private:
  struct Box {
    std::span<const std::byte> letter;
    bool full = false, expected = false, read = false;  // read: at this moment
  };
  struct Rank {
    std::condition_variable changed;
    int expected = 0, untaken = 0;
    bool left = false;
  };
  Box& box(int from, int to) {
    return boxes_[static_cast<size_t>(from) * ranks_.size() + static_cast<size_t>(to)];
  }
  Rank& of(int rank) { return ranks_[static_cast<size_t>(rank)]; }

  void post(int rank, const Sends& send) {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank || send[peer].empty()) continue;
      Box& out = box(rank, peer);
      out.letter = send[peer], out.full = true;
      ++of(rank).untaken;
      if (std::exchange(out.expected, false) && --of(peer).expected == 0) of(peer).changed.notify_one();
    }
  }

  void expect(int rank, const Receives& receive) {
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank || receive[peer].empty() || box(peer, rank).full) continue;
      box(peer, rank).expected = true;
      ++of(rank).expected;
    }
  }

  // Letters are copied while others may post.
  void take(std::unique_lock<std::mutex>& lock, int rank, const Receives& receive) {
    const auto each = [&](auto&& work) {
      for (int peer = 0; peer < size(); ++peer)
        if (peer != rank && !receive[peer].empty()) work(peer, box(peer, rank));
    };
    each([&](int peer, Box& in) {
      RETORT_ASSERT(in.letter.size() == receive[peer].size());
      in.read = true;
    });
    lock.unlock();
    each([&](int peer, const Box& in) {
      std::memcpy(receive[peer].data(), in.letter.data(), in.letter.size());
    });
    lock.lock();
    each([&](int peer, Box& in) {
      in.full = in.read = false;
      if (--of(peer).untaken == 0) of(peer).changed.notify_one();
    });
  }

  // Until `left` is 0; `waits_for` says for which peers.
  template <class WaitsFor>
  void await(std::unique_lock<std::mutex>& lock, int rank, Transport::Wait wait, const WaitsFor& waits_for,
             const int& left) {
    const auto over = [&] {
      if (left == 0 || failure_) return true;
      for (int peer = 0; peer < size(); ++peer)
        if (peer != rank && of(peer).left && waits_for(peer)) return true;
      return false;
    };
    const bool patient = wait == Transport::Wait::kPatient;
    const double limit = patient ? alone_ : timeout_;
    of(rank).changed.wait_for(lock, std::chrono::duration<double>(limit), over);
    if (left == 0) return;
    if (failure_) throw CommError(*failure_);
    MissingRanks missing{{}, limit, patient ? MissingRanks::How::kAlone : MissingRanks::How::kWatched};
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank || !waits_for(peer)) continue;
      check<CommError>(!of(peer).left, "[comm] rank {} waits for rank {}, which has left the group", rank,
                       peer);
      missing.ranks.push_back(peer);
    }
    throw missing;
  }

  // The sender's memory may go when no peer reads it.
  void withdraw(std::unique_lock<std::mutex>& lock, int rank) {
    const auto is_read = [&] {
      for (int peer = 0; peer < size(); ++peer)
        if (box(rank, peer).read) return true;
      return false;
    };
    while (is_read()) of(rank).changed.wait_for(lock, std::chrono::milliseconds(1));
    for (int peer = 0; peer < size(); ++peer) box(rank, peer).full = box(peer, rank).expected = false;
    of(rank).expected = of(rank).untaken = 0;
  }

  std::mutex mutex_;
  const double timeout_, alone_;
  std::vector<Box> boxes_;
  std::deque<Rank> ranks_;
  std::optional<std::string> failure_;
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
  ~ThreadTransport() override { group_.leave(rank_); }
  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }
  std::string name() const override { return "threads"; }

  void exchange(const Sends& send, const Receives& receive, Wait wait) override {
    group_.exchange(rank_, send, receive, wait);
  }
  void interrupt() noexcept override { group_.fail(fmt::format("[comm] rank {} was interrupted", rank_)); }
  [[noreturn]] void abort(int exit_code) override { std::_Exit(exit_code); }

 private:
  ThreadGroup& group_;
  const int rank_;
};

}  // namespace

void run_thread_ranks(int ranks, const std::function<void(Comm&)>& body, const CommOptions& options) {
  check(ranks >= 1, "[comm] a group needs at least 1 rank, got {}", ranks);
  ThreadGroup group(ranks, options);
  std::mutex mutex;
  std::exception_ptr first;
  std::string refused;
  const auto fail = [&](int rank, const char* what) {
    {
      std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
    group.fail(fmt::format("[comm] rank {} failed: {}", rank, what));
  };
  const auto work = [&](int rank) {
    std::optional<QueuedComm> comm;  // outlives the handlers, so that the peers learn why before it leaves
    try {
      comm.emplace([&] { return std::make_unique<ThreadTransport>(group, rank); });
      body(*comm);
    } catch (const std::exception& error) {
      fail(rank, error.what());
    } catch (...) {
      fail(rank, "an exception of unknown type");
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(ranks);
  try {
    for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(work, rank);
  } catch (const std::exception& error) {  // the ranks that run must not wait for one without a thread
    refused = fmt::format("[comm] {} of {} ranks have a thread: {}", threads.size(), ranks, error.what());
    group.fail(refused);
  }
  for (std::thread& thread : threads) thread.join();
  if (!refused.empty()) throw CommError(refused);
  if (first) std::rethrow_exception(first);
}

}  // namespace retort::comm
