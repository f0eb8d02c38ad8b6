#include "comm/queued_comm.h"

#include <fmt/ranges.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "comm/flight.h"
#include "comm/ordered_reduce.h"
#include "comm/tree_sum.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/host_tensor.h"
#include "core/shape.h"

namespace retort::comm {
namespace {

// Up to here a second round costs more than sending everything to everyone.
constexpr int64_t kSmallBytes = 4096;

using Sends = std::vector<std::span<const std::byte>>;
using Receives = std::vector<std::span<std::byte>>;

// For measurements (bench/ranks.py): off, and a collective is waited for where it is called.
bool overlaps() {
  const char* const given = std::getenv("RETORT_COMM_OVERLAP");
  return given == nullptr || std::string_view(given) != "off";
}

void check_dense(std::string_view operation, const at::Tensor& tensor) {
  check(tensor.defined() && tensor.is_cpu() && tensor.is_non_overlapping_and_dense(),
        "[{}] needs a dense CPU tensor, got {}", operation,
        !tensor.defined() ? "an undefined one"
        : tensor.is_cpu() ? "a strided view"
                          : tensor.device().str());
}

}  // namespace

std::string MissingRanks::text() const {
  const std::string who = fmt::format("waited {:g} s for rank {}", seconds, fmt::join(ranks, ", "));
  switch (how) {
    case How::kWatched:
      return who + " (RETORT_COMM_TIMEOUT=SECONDS sets how long)";
    case How::kSilent:
      return who + ", which gave no sign of life (RETORT_COMM_TIMEOUT=SECONDS sets how long)";
    case How::kAlone:
      return who + ", which lives (RETORT_COMM_ALONE_TIMEOUT=SECONDS sets how long)";
  }
  return who;
}

// A tensor cut into one run of elements a rank, as evenly as possible.
struct QueuedComm::Slices {
  std::byte* data;
  int64_t count, item;
  int ranks;
  std::span<std::byte> operator[](int rank) const {
    const int64_t begin = count * rank / ranks, end = count * (rank + 1) / ranks;
    return {data + begin * item, static_cast<size_t>((end - begin) * item)};
  }
};

std::string QueuedComm::Call::text() const {
  const char* type = c10::toString(static_cast<at::ScalarType>(dtype));
  switch (kind) {
    case kAllReduce: {
      constexpr const char* kNames[] = {"sum", "max", "min"};
      return fmt::format("all_reduce {} of {} {} (number {})", kNames[detail], count, type, number);
    }
    case kSumTree:
      return fmt::format("sum_tree over {} leaves a rank, of {} {} (number {})", detail, count, type, number);
    case kBroadcast:
      return fmt::format("broadcast from rank {} of {} {} (number {})", detail, count, type, number);
    case kAllGather:
      return fmt::format("all_gather of {} {} (number {})", count, type, number);
    case kAllToAll:
      return fmt::format("all_to_all of {} {}, cut as {:08x} (number {})", count, type, cut, number);
    case kExchange:
      return fmt::format("exchange of {} bytes for {} (number {})", count, expected, number);
    case kBarrier:
      return fmt::format("barrier (number {})", number);
  }
  return "a call that this version does not know";
}

bool QueuedComm::Call::meets(const Call& theirs) const {
  const bool sizes =
      kind == kExchange ? count == theirs.expected && expected == theirs.count : count == theirs.count;
  return sizes && kind == theirs.kind && detail == theirs.detail && dtype == theirs.dtype &&
         cut == theirs.cut && number == theirs.number && group == theirs.group;
}

// Owns the transport, and runs the jobs of all groups over it in the order of their calls.
struct QueuedComm::Worker {
  explicit Worker(std::function<std::unique_ptr<Transport>()> make) {
    std::promise<void> ready;
    thread = std::thread([this, &ready, make = std::move(make)] { work(make, ready); });
    try {
      ready.get_future().get();
    } catch (...) {
      thread.join();
      throw;
    }
  }
  ~Worker() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_one();
    thread.join();
  }

  void add(std::packaged_task<void()> job, bool at_once = false) {
    {
      std::lock_guard lock(mutex);
      at_once ? jobs.push_front(std::move(job)) : jobs.push_back(std::move(job));
    }
    changed.notify_one();
  }

  std::byte* scratch(int64_t bytes) {
    if (bytes > scratch_bytes) {
      buffer.reset();
      buffer = std::make_unique_for_overwrite<std::byte[]>(bytes);
      scratch_bytes = bytes;
    }
    return buffer.get();
  }

  std::unique_ptr<Transport> transport;
  std::optional<Flight> flight;
  const bool overlap = overlaps();
  std::exception_ptr broken;  // after one failed collective the ranks no longer agree on the next

 private:
  void work(const std::function<std::unique_ptr<Transport>()>& make, std::promise<void>& ready) {
    try {
      transport = make();
      flight.emplace(transport->rank(), transport->size(), transport->name());
    } catch (...) {
      ready.set_exception(std::current_exception());
      return;
    }
    ready.set_value();
    for (;;) {
      std::packaged_task<void()> job;
      {
        std::unique_lock lock(mutex);
        const std::chrono::duration<double> beat(transport->beat_seconds());
        if (!changed.wait_for(lock, beat, [&] { return stop || !jobs.empty(); })) {
          lock.unlock();
          transport->beat();
          continue;
        }
        if (jobs.empty()) break;
        job = std::move(jobs.front());
        jobs.pop_front();
      }
      job();
    }
    if (broken) transport->interrupt();  // the group ends with an error
    transport.reset();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::packaged_task<void()>> jobs;
  bool stop = false;
  std::unique_ptr<std::byte[]> buffer;
  int64_t scratch_bytes = 0;
  std::thread thread;  // last: it uses all of the above
};

QueuedComm::QueuedComm(std::function<std::unique_ptr<Transport>()> make)
    : own_worker_(std::make_unique<Worker>(std::move(make))) {
  worker_ = own_worker_.get();
  rank_ = worker_->transport->rank();
  size_ = worker_->transport->size();
  name_ = worker_->transport->name();
}

QueuedComm::QueuedComm(Worker& worker, std::vector<int> members)
    : size_(static_cast<int>(members.size())),
      name_(worker.transport->name()),
      members_(std::move(members)),
      group_(xxh3(std::as_bytes(std::span(members_)))),
      worker_(&worker) {
  rank_ = static_cast<int>(std::ranges::find(members_, worker_->transport->rank()) - members_.begin());
}

QueuedComm::~QueuedComm() {
  if (own_worker_ && std::uncaught_exceptions() > 0)
    worker_->transport->interrupt();  // the peers may never come
}

std::shared_ptr<Comm> QueuedComm::subgroup(const std::vector<int>& ranks) {
  const std::set<int> distinct(ranks.begin(), ranks.end());
  check(distinct.size() == ranks.size() && distinct.contains(rank_) && *distinct.begin() >= 0 &&
            *distinct.rbegin() < size_,
        "[subgroup] must be of different ranks below {}, {} among them, got {}", size_, rank_,
        fmt::join(ranks, ", "));
  std::vector<int> members;
  for (const int rank : ranks)
    members.push_back(members_.empty() ? rank : members_[static_cast<size_t>(rank)]);
  return std::shared_ptr<Comm>(new QueuedComm(*worker_, std::move(members)));
}

int QueuedComm::own() const { return worker_->transport->rank(); }

int QueuedComm::number_of(int peer) const {
  return members_.empty() ? peer : members_[static_cast<size_t>(peer)];
}

Flight* QueuedComm::flight() { return &*worker_->flight; }

void QueuedComm::transfer(const Sends& send, const Receives& receive, Transport::Wait wait) {
  if (members_.empty()) return worker_->transport->exchange(send, receive, wait);
  const auto all = static_cast<size_t>(worker_->transport->size());
  Sends send_all(all);
  Receives receive_all(all);
  for (size_t i = 0; i < members_.size(); ++i) {
    send_all[static_cast<size_t>(members_[i])] = send[i];
    receive_all[static_cast<size_t>(members_[i])] = receive[i];
  }
  worker_->transport->exchange(send_all, receive_all, wait);
}

Pending QueuedComm::submit(Call call, int64_t bytes, std::function<void()> body, std::vector<Call> to) {
  call.number = calls_++;
  call.group = group_;
  for (Call& one : to) one.number = call.number, one.group = call.group;
  std::packaged_task<void()> job(  // a subgroup lives until its calls are done
      [this, keep = weak_from_this().lock(), call, bytes, body = std::move(body),
       to = std::move(to)]() mutable {
        run(call, bytes, body, to);
        body = nullptr;  // or a Pending keeps its tensors
      });
  Pending pending(job.get_future().share());
  worker_->add(std::move(job));
  if (!worker_->overlap) pending.wait();
  return pending;
}

void QueuedComm::run(const Call& call, int64_t bytes, const std::function<void()>& body,
                     const std::vector<Call>& to) {
  std::exception_ptr& broken = worker_->broken;
  if (broken) std::rethrow_exception(broken);
  Flight& flight = *worker_->flight;
  flight.begin({call.number, fmt::format("{}", fmt::join(members_, ", ")), call.text(), bytes});
  std::string why;
  try {
    agree(call, to);
    body();
    flight.end();
    return;
  } catch (const MissingRanks& missing) {
    why = fmt::format("[comm] rank {}: {} {}", own(), call.text(), missing.text());
  } catch (const CommError& error) {
    why = fmt::format("[comm] rank {}: {}: {}", own(), call.text(), error.what());
  } catch (...) {
    broken = std::current_exception();
    why = "an error that is no peer's";
  }
  if (!broken) broken = std::make_exception_ptr(CommError(why));
  worker_->transport->tell(why);
  flight.fail(why);
  std::rethrow_exception(broken);
}

// Ranks tell each other as well how long they have waited so far, which is how all know who is slow.
void QueuedComm::agree(const Call& call, const std::vector<Call>& to) {
  const auto start = std::chrono::steady_clock::now();
  Flight& flight = *worker_->flight;
  const bool barrier = call.kind == Call::kBarrier;
  std::vector<Call> mine = to.empty() ? std::vector<Call>(static_cast<size_t>(size_), call) : to,
                    theirs = mine;
  Sends send;
  Receives receive;
  for (size_t peer = 0; peer < mine.size(); ++peer) {
    mine[peer].waited = flight.own_wait();
    send.push_back(std::as_bytes(std::span(&mine[peer], 1)));
    receive.push_back(std::as_writable_bytes(std::span(&theirs[peer], 1)));
  }
  transfer(send, receive, barrier ? Transport::Wait::kPatient : Transport::Wait::kWatched);
  for (int peer = 0; peer < size_; ++peer) {
    const Call &here = mine[static_cast<size_t>(peer)], &there = theirs[static_cast<size_t>(peer)];
    if (peer == rank_) continue;
    check<CommError>(here.meets(there), "ranks call different collectives: rank {} {}, rank {} {}", own(),
                     here.text(), number_of(peer), there.text());
    flight.waited(number_of(peer), there.waited);
  }
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
  flight.waited(own(), flight.own_wait() + (barrier ? 0.0 : waited.count()));
}

// out: `in` of every rank, one after the other.
void QueuedComm::gather_all(std::byte* out, std::span<const std::byte> in) {
  Receives receive;
  for (int peer = 0; peer < size_; ++peer) receive.emplace_back(out + peer * in.size(), in.size());
  if (!in.empty()) std::memmove(receive[rank_].data(), in.data(), in.size());
  transfer(Sends(size_, in), receive);
}

void QueuedComm::gather_slices(const Slices& slices) {
  Receives receive;
  for (int peer = 0; peer < size_; ++peer) receive.push_back(slices[peer]);
  transfer(Sends(size_, slices[rank_]), receive);
}

// This rank's slice of a row from every other rank: out[r] is rank r's.
void QueuedComm::trade_slices(std::byte* out, const Slices& slices) {
  const size_t bytes = slices[rank_].size();
  Sends send;
  Receives receive;
  for (int peer = 0; peer < size_; ++peer) {
    send.push_back(slices[peer]);
    receive.emplace_back(out + peer * bytes, bytes);
  }
  transfer(send, receive);
}

// Rows of `tensor`: this rank's subtrees of a tree over runs of `leaves`. The first becomes the result.
void QueuedComm::reduce_all(const at::Tensor& tensor, Reduce reduce, int64_t rows, int64_t leaves) {
  std::byte* data = mutable_host_bytes(tensor).data();
  const int64_t count = tensor.numel() / rows, item = tensor.element_size();
  const bool small = count * item <= kSmallBytes;
  const auto row = [&](int64_t i) { return Slices{data + i * count * item, count, item, size_}; };
  const std::span<std::byte> mine = small ? std::span(data, count * item) : row(0)[rank_];
  const auto bytes = static_cast<int64_t>(mine.size());
  std::byte* theirs = worker_->scratch(bytes * size_ * rows);  // [rows, ranks, bytes]
  for (int64_t i = 0; i < rows; ++i) {
    std::byte* out = theirs + i * size_ * bytes;
    small ? gather_all(out, std::span(row(i).data, mine.size())) : trade_slices(out, row(i));
  }
  std::vector<ReduceInput> inputs;
  for (int64_t peer = 0; peer < size_; ++peer)
    for (int64_t i = 0; const int64_t size : subtrees(peer * leaves, (peer + 1) * leaves)) {
      const bool own = !small && peer == rank_;
      inputs.push_back({own ? row(i)[rank_].data() : theirs + (i * size_ + peer) * bytes, size});
      ++i;
    }
  ordered_reduce(tensor.scalar_type(), reduce, inputs, mine.data(), bytes / item);
  if (!small) gather_slices(row(0));
}

void QueuedComm::spread(const at::Tensor& tensor, int root) {
  const Slices slices{mutable_host_bytes(tensor).data(), tensor.numel(), tensor.element_size(), size_};
  const std::span<std::byte> whole(slices.data, slices.count * slices.item);
  const bool small = static_cast<int64_t>(whole.size()) <= kSmallBytes;
  Sends send(size_);
  Receives receive(size_);
  for (int peer = 0; rank_ == root && peer < size_; ++peer) send[peer] = small ? whole : slices[peer];
  if (rank_ != root) receive[root] = small ? whole : slices[rank_];
  transfer(send, receive);
  if (!small) gather_slices(slices);
}

Pending QueuedComm::all_reduce(at::Tensor tensor, Reduce reduce) {
  check_dense("all_reduce", tensor);
  check_reducible(tensor.scalar_type());
  return submit({Call::kAllReduce, static_cast<int32_t>(reduce), static_cast<int32_t>(tensor.scalar_type()),
                 0, tensor.numel()},
                static_cast<int64_t>(tensor.nbytes()),
                [this, tensor, reduce] { reduce_all(tensor, reduce, 1, 1); });
}

Pending QueuedComm::sum_tree(at::Tensor nodes_PN, int64_t leaves) {
  const int64_t rows = most_subtrees(leaves, size_);
  check_dense("sum_tree", nodes_PN);
  check_nodes(nodes_PN, rows);
  return submit({Call::kSumTree, static_cast<int32_t>(leaves), static_cast<int32_t>(nodes_PN.scalar_type()),
                 0, nodes_PN.numel()},
                static_cast<int64_t>(nodes_PN.nbytes()),
                [=, this] { reduce_all(nodes_PN, Reduce::kSum, rows, leaves); });
}

Pending QueuedComm::broadcast(at::Tensor tensor, int root) {
  check_dense("broadcast", tensor);
  check(root >= 0 && root < size_, "[broadcast] root must be a rank below {}, got {}", size_, root);
  return submit({Call::kBroadcast, root, static_cast<int32_t>(tensor.scalar_type()), 0, tensor.numel()},
                static_cast<int64_t>(tensor.nbytes()), [this, tensor, root] { spread(tensor, root); });
}

Pending QueuedComm::all_gather(at::Tensor out, at::Tensor in) {
  check_dense("all_gather", out);
  check_dense("all_gather", in);
  check(out.is_contiguous() && in.is_contiguous() && out.scalar_type() == in.scalar_type() &&
            out.numel() == in.numel() * size_,
        "[all_gather] out must be contiguous with {} x {} elements of {}, got {} of {}", size_, in.numel(),
        c10::toString(in.scalar_type()), out.numel(), c10::toString(out.scalar_type()));
  return submit({Call::kAllGather, 0, static_cast<int32_t>(in.scalar_type()), 0, in.numel()},
                static_cast<int64_t>(out.nbytes()),
                [this, out, in] { gather_all(mutable_host_bytes(out).data(), host_bytes(in)); });
}

void QueuedComm::trade_runs(const std::vector<at::Tensor>& out, const at::Tensor& in_N,
                            const std::vector<int64_t>& bounds) {
  const std::span<const std::byte> bytes = host_bytes(in_N);
  const auto item = static_cast<size_t>(in_N.element_size());
  Sends send;
  Receives receive;
  for (size_t peer = 0; peer < out.size(); ++peer) {
    send.push_back(
        bytes.subspan(bounds[peer] * item, static_cast<size_t>(bounds[peer + 1] - bounds[peer]) * item));
    receive.push_back(mutable_host_bytes(out[peer]));
  }
  if (!send[rank_].empty()) std::memcpy(receive[rank_].data(), send[rank_].data(), send[rank_].size());
  transfer(send, receive);
}

Pending QueuedComm::all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) {
  check_dense("all_to_all", in_N);
  for (const at::Tensor& one : out) check_dense("all_to_all", one);
  check_runs(out, in_N, bounds, rank_, size_);
  const auto cut = static_cast<uint32_t>(xxh3(std::as_bytes(std::span(bounds))));
  return submit({Call::kAllToAll, 0, static_cast<int32_t>(in_N.scalar_type()), cut, in_N.numel()},
                static_cast<int64_t>(in_N.nbytes()), [=, this] { trade_runs(out, in_N, bounds); });
}

void QueuedComm::trade_messages(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive) {
  Sends out;
  Receives in;
  for (const at::Tensor& one : send)
    out.push_back(one.defined() ? host_bytes(one) : std::span<const std::byte>());
  for (const at::Tensor& one : receive)
    in.push_back(one.defined() ? mutable_host_bytes(one) : std::span<std::byte>());
  if (!out[rank_].empty()) std::memcpy(in[rank_].data(), out[rank_].data(), out[rank_].size());
  transfer(out, in);
}

// Each two ranks compare what they trade: the bytes of a message, which has one dtype for all.
Pending QueuedComm::exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) {
  check_messages(send, receive, rank_, size_);
  int64_t bytes = 0;
  std::vector<Call> to(send.size(), Call{Call::kExchange});
  for (size_t peer = 0; peer < to.size(); ++peer) {
    for (const at::Tensor* one : {&send[peer], &receive[peer]})
      if (one->defined()) check_dense("exchange", *one);
    if (send[peer].defined()) to[peer].count = static_cast<int64_t>(send[peer].nbytes());
    if (receive[peer].defined()) to[peer].expected = static_cast<int64_t>(receive[peer].nbytes());
    bytes += to[peer].count + to[peer].expected;
  }
  return submit(
      {Call::kExchange}, bytes, [=, this] { trade_messages(send, receive); }, to);
}

void QueuedComm::barrier() {
  submit({Call::kBarrier}, 0, [] {}).wait();
}

void QueuedComm::abort(const std::string& why, int exit_code) {
  fmt::print(stderr, "rank {}: {}\n", own(), why);
  std::fflush(stderr);
  worker_->transport->interrupt();
  worker_->add(std::packaged_task<void()>([this, exit_code] { worker_->transport->abort(exit_code); }), true);
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));  // until the worker has ended the process
}

}  // namespace retort::comm
