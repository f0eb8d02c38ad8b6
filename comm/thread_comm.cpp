// Ranks as threads of one process: peers read each other's buffers between two meetings of all.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "comm/comm.h"
#include "comm/queued_comm.h"
#include "core/error.h"

namespace retort::comm {
namespace {

using Sends = std::vector<std::span<const std::byte>>;

class ThreadGroup {
 public:
  ThreadGroup(int ranks, double timeout_seconds)
      : timeout_(timeout_seconds), arrivals_(ranks), left_(ranks), sends_(ranks) {}

  int size() const { return static_cast<int>(arrivals_.size()); }

  // Waits until every rank has called this as often as this one. The peers may read `send` until the next
  // meeting ends.
  void meet(int rank, const Sends& send, Transport::Wait wait) {
    std::unique_lock lock(mutex_);
    sends_[rank] = &send;
    const int64_t turn = ++arrivals_[rank];
    const auto absent = [&](int peer) { return arrivals_[peer] < turn; };
    const auto all_here = [&] { return std::ranges::min(arrivals_) >= turn; };
    const auto hopeless = [&] {
      for (int peer = 0; peer < size(); ++peer)
        if (left_[peer] && absent(peer)) return true;
      return failure_.has_value();
    };
    if (all_here()) {
      changed_.notify_all();
      return;
    }
    const auto over = [&] { return all_here() || hopeless(); };
    if (wait == Transport::Wait::kPatient)
      changed_.wait(lock, over);
    else
      changed_.wait_for(lock, std::chrono::duration<double>(timeout_), over);
    if (all_here()) return;
    if (failure_) throw CommError(*failure_);
    MissingRanks missing{{}, timeout_};
    for (int peer = 0; peer < size(); ++peer) {
      check<CommError>(!(left_[peer] && absent(peer)),
                       "[comm] rank {} waits for rank {}, which has left the group", rank, peer);
      if (absent(peer)) missing.ranks.push_back(peer);
    }
    throw missing;
  }

  // What `from` sends to `to`; only between two meetings.
  std::span<const std::byte> sent(int from, int to) {
    std::lock_guard lock(mutex_);
    return (*sends_[from])[to];
  }

  void fail(const std::string& why) {
    std::lock_guard lock(mutex_);
    if (!failure_) failure_ = why;
    changed_.notify_all();
  }

  void leave(int rank) {
    std::lock_guard lock(mutex_);
    left_[rank] = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  const double timeout_;
  std::vector<int64_t> arrivals_;
  std::vector<bool> left_;
  std::vector<const Sends*> sends_;
  std::optional<std::string> failure_;
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(ThreadGroup& group, int rank) : group_(group), rank_(rank) {}
  ~ThreadTransport() override { group_.leave(rank_); }
  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }
  std::string name() const override { return "threads"; }

  void exchange(const Sends& send, const std::vector<std::span<std::byte>>& receive, Wait wait) override {
    group_.meet(rank_, send, wait);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_ || receive[peer].empty()) continue;
      const std::span<const std::byte> sent = group_.sent(peer, rank_);
      RETORT_ASSERT(sent.size() == receive[peer].size());
      std::memcpy(receive[peer].data(), sent.data(), sent.size());
    }
    group_.meet(rank_, send, wait);
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
  ThreadGroup group(ranks, options.timeout_seconds);
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
