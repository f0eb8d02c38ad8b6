#include "comm/queued_comm.h"

#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <cstring>

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

void check_dense(std::string_view operation, const at::Tensor& tensor) {
  check(tensor.defined() && tensor.is_cpu() && tensor.is_non_overlapping_and_dense(),
        "[{}] needs a dense CPU tensor, got {}", operation,
        !tensor.defined() ? "an undefined one"
        : tensor.is_cpu() ? "a strided view"
                          : tensor.device().str());
}

}  // namespace

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
    case kBarrier:
      return fmt::format("barrier (number {})", number);
  }
  return "a call that this version does not know";
}

QueuedComm::QueuedComm(std::function<std::unique_ptr<Transport>()> make) {
  std::promise<void> ready;
  worker_ = std::thread([this, &ready, make = std::move(make)] { work(make, ready); });
  try {
    ready.get_future().get();
  } catch (...) {
    worker_.join();
    throw;
  }
}

QueuedComm::~QueuedComm() {
  if (std::uncaught_exceptions() > 0) transport_->interrupt();  // the peers may never come
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  worker_.join();
}

void QueuedComm::work(const std::function<std::unique_ptr<Transport>()>& make, std::promise<void>& ready) {
  try {
    transport_ = make();
    rank_ = transport_->rank();
    size_ = transport_->size();
    name_ = transport_->name();
  } catch (...) {
    ready.set_exception(std::current_exception());
    return;
  }
  ready.set_value();
  for (;;) {
    std::packaged_task<void()> job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
      if (jobs_.empty()) break;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
  if (broken_) transport_->interrupt();  // the group ends with an error
  transport_.reset();
}

Pending QueuedComm::submit(Call call, std::function<void()> body) {
  call.number = calls_++;
  std::packaged_task<void()> job([this, call, body = std::move(body)] { run(call, body); });
  Pending pending(job.get_future().share());
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return pending;
}

void QueuedComm::run(const Call& call, const std::function<void()>& body) {
  if (broken_) std::rethrow_exception(broken_);
  try {
    agree(call);
    body();
  } catch (const MissingRanks& missing) {
    broken_ = std::make_exception_ptr(CommError(fmt::format(
        "[comm] rank {}: {} waited {:g} s for rank {} (RETORT_COMM_TIMEOUT=SECONDS sets how long)", rank_,
        call.text(), missing.seconds, fmt::join(missing.ranks, ", "))));
  } catch (...) {
    broken_ = std::current_exception();
  }
  if (broken_) std::rethrow_exception(broken_);
}

void QueuedComm::agree(const Call& call) {
  std::vector<Call> calls(size_, call);
  Receives receive;
  for (Call& theirs : calls) receive.push_back(std::as_writable_bytes(std::span(&theirs, 1)));
  transport_->exchange(Sends(size_, std::as_bytes(std::span(&call, 1))), receive,
                       call.kind == Call::kBarrier ? Transport::Wait::kPatient : Transport::Wait::kWatched);
  for (int peer = 0; peer < size_; ++peer)
    check<CommError>(calls[peer] == call, "[comm] ranks call different collectives: rank {} {}, rank {} {}",
                     rank_, call.text(), peer, calls[peer].text());
}

std::byte* QueuedComm::scratch(int64_t bytes) {
  if (bytes > scratch_bytes_) {
    scratch_.reset();
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

// out: `in` of every rank, one after the other.
void QueuedComm::gather_all(std::byte* out, std::span<const std::byte> in) {
  Receives receive;
  for (int peer = 0; peer < size_; ++peer) receive.emplace_back(out + peer * in.size(), in.size());
  if (!in.empty()) std::memmove(receive[rank_].data(), in.data(), in.size());
  exchange(Sends(size_, in), receive);
}

void QueuedComm::gather_slices(const Slices& slices) {
  Receives receive;
  for (int peer = 0; peer < size_; ++peer) receive.push_back(slices[peer]);
  exchange(Sends(size_, slices[rank_]), receive);
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
  exchange(send, receive);
}

// Rows of `tensor`: this rank's subtrees of a tree over runs of `leaves`. The first becomes the result.
void QueuedComm::reduce_all(const at::Tensor& tensor, Reduce reduce, int64_t rows, int64_t leaves) {
  std::byte* data = mutable_host_bytes(tensor).data();
  const int64_t count = tensor.numel() / rows, item = tensor.element_size();
  const bool small = count * item <= kSmallBytes;
  const auto row = [&](int64_t i) { return Slices{data + i * count * item, count, item, size_}; };
  const std::span<std::byte> mine = small ? std::span(data, count * item) : row(0)[rank_];
  const auto bytes = static_cast<int64_t>(mine.size());
  std::byte* theirs = scratch(bytes * size_ * rows);  // [rows, ranks, bytes]
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
  exchange(send, receive);
  if (!small) gather_slices(slices);
}

Pending QueuedComm::all_reduce(at::Tensor tensor, Reduce reduce) {
  check_dense("all_reduce", tensor);
  check_reducible(tensor.scalar_type());
  return submit({Call::kAllReduce, static_cast<int32_t>(reduce), static_cast<int32_t>(tensor.scalar_type()),
                 0, tensor.numel()},
                [this, tensor, reduce] { reduce_all(tensor, reduce, 1, 1); });
}

Pending QueuedComm::sum_tree(at::Tensor nodes_PN, int64_t leaves) {
  const int64_t rows = most_subtrees(leaves, size_);
  check_dense("sum_tree", nodes_PN);
  check_nodes(nodes_PN, rows);
  return submit({Call::kSumTree, static_cast<int32_t>(leaves), static_cast<int32_t>(nodes_PN.scalar_type()),
                 0, nodes_PN.numel()},
                [=, this] { reduce_all(nodes_PN, Reduce::kSum, rows, leaves); });
}

Pending QueuedComm::broadcast(at::Tensor tensor, int root) {
  check_dense("broadcast", tensor);
  check(root >= 0 && root < size_, "[broadcast] root must be a rank below {}, got {}", size_, root);
  return submit({Call::kBroadcast, root, static_cast<int32_t>(tensor.scalar_type()), 0, tensor.numel()},
                [this, tensor, root] { spread(tensor, root); });
}

Pending QueuedComm::all_gather(at::Tensor out, at::Tensor in) {
  check_dense("all_gather", out);
  check_dense("all_gather", in);
  check(out.is_contiguous() && in.is_contiguous() && out.scalar_type() == in.scalar_type() &&
            out.numel() == in.numel() * size_,
        "[all_gather] out must be contiguous with {} x {} elements of {}, got {} of {}", size_, in.numel(),
        c10::toString(in.scalar_type()), out.numel(), c10::toString(out.scalar_type()));
  return submit({Call::kAllGather, 0, static_cast<int32_t>(in.scalar_type()), 0, in.numel()},
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
  exchange(send, receive);
}

Pending QueuedComm::all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) {
  check_dense("all_to_all", in_N);
  for (const at::Tensor& one : out) check_dense("all_to_all", one);
  check_runs(out, in_N, bounds, rank_, size_);
  const auto cut = static_cast<uint32_t>(xxh3(std::as_bytes(std::span(bounds))));
  return submit({Call::kAllToAll, 0, static_cast<int32_t>(in_N.scalar_type()), cut, in_N.numel()},
                [=, this] { trade_runs(out, in_N, bounds); });
}

void QueuedComm::barrier() {
  submit({Call::kBarrier}, [] {}).wait();
}

void QueuedComm::abort(const std::string& why, int exit_code) {
  fmt::print(stderr, "rank {}: {}\n", rank_, why);
  std::fflush(stderr);
  transport_->interrupt();
  {
    std::lock_guard lock(mutex_);
    jobs_.emplace_front([this, exit_code] { transport_->abort(exit_code); });
  }
  changed_.notify_one();
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));  // until the worker has ended the process
}

}  // namespace retort::comm
