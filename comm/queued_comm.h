// The Comm over any Transport: a worker thread owns the transport and runs the collectives one after the
// other, in the order of the calls. They work on host memory; a device's tensor is copied by its caller.
//
//   all_reduce  all-to-all of slices, each rank reduces its own slice (ordered_reduce), all-gather
//   sum_tree    the same for each row of subtrees, with one all-gather
//   broadcast   the root scatters slices, then all-gather: twice the bytes, whatever the number of ranks
//   all_to_all  one exchange; so is exchange
//   small ones  every rank sends all to all
//
// Before its data each operation exchanges a Call, so that ranks which disagree say so instead of hanging. A subgroup is
// another Comm over the same worker: a transport moves no bytes where nobody sends any.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "comm/transport.h"

namespace retort::comm {

// ShapeError unless these are what all_to_all() takes on this rank.
void check_runs(const std::vector<at::Tensor>& out, const at::Tensor& in_N,
                const std::vector<int64_t>& bounds, int rank, int size);

// ShapeError unless these are what exchange() takes on this rank.
void check_messages(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive, int rank,
                    int size);

class QueuedComm final : public Comm, public std::enable_shared_from_this<QueuedComm> {
 public:
  // `make` runs on the worker thread, where the transport also ends.
  explicit QueuedComm(std::function<std::unique_ptr<Transport>()> make);
  // Finishes what was called, or interrupts it when an exception destroys the object.
  ~QueuedComm() override;
  QueuedComm(const QueuedComm&) = delete;
  QueuedComm& operator=(const QueuedComm&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return name_; }
  Pending all_reduce(at::Tensor tensor, Reduce reduce) override;
  Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) override;
  Pending broadcast(at::Tensor tensor, int root) override;
  Pending all_gather(at::Tensor out, at::Tensor in) override;
  Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) override;
  Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) override;
  std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) override;
  Flight* flight() override;
  void barrier() override;
  [[noreturn]] void abort(const std::string& why, int exit_code) override;

 private:
  // What a rank is about to do; equal on all ranks, but for what is of two of them. Exchanged as bytes: no padding.
  struct Call {
    enum Kind : int32_t { kAllReduce, kSumTree, kBroadcast, kAllGather, kAllToAll, kExchange, kBarrier };
    Kind kind;
    int32_t detail = 0;  // the Reduce, the leaves, or the root
    int32_t dtype = 0;
    uint32_t cut = 0;      // a digest of all_to_all's bounds
    int64_t count = 0;     // elements; of exchange: bytes to the rank that reads this
    int64_t number = 0;    // how many calls came before on this rank, of this group
    uint64_t group = 0;    // a digest of a subgroup's ranks
    int64_t expected = 0;  // of exchange: bytes from the rank that reads this
    double waited = 0;     // seconds that this rank has waited for others; compared by nobody
    bool meets(const Call& theirs) const;
    std::string text() const;
  };
  struct Slices;
  struct Worker;

  QueuedComm(Worker& worker, std::vector<int> members);
  // bytes: what the tensors of the call hold. to: of exchange, the call that each peer gets.
  Pending submit(Call call, int64_t bytes, std::function<void()> body, std::vector<Call> to = {});
  void run(const Call& call, int64_t bytes, const std::function<void()>& body, const std::vector<Call>& to);
  void agree(const Call& call, const std::vector<Call>& to);
  void transfer(const std::vector<std::span<const std::byte>>& send,
                const std::vector<std::span<std::byte>>& receive,
                Transport::Wait wait = Transport::Wait::kWatched);
  void reduce_all(const at::Tensor& tensor, Reduce reduce, int64_t rows, int64_t leaves);
  void spread(const at::Tensor& tensor, int root);
  void trade_messages(const std::vector<at::Tensor>& send, const std::vector<at::Tensor>& receive);
  void trade_runs(const std::vector<at::Tensor>& out, const at::Tensor& in_N,
                  const std::vector<int64_t>& bounds);
  void gather_all(std::byte* out, std::span<const std::byte> in);
  void gather_slices(const Slices& slices);
  void trade_slices(std::byte* out, const Slices& slices);
  int own() const;                // this rank, as the transport has it
  int number_of(int peer) const;  // a member, likewise

  int rank_ = 0, size_ = 1;
  std::string name_;
  std::vector<int> members_;  // the transport's ranks of a subgroup; empty: all
  uint64_t group_ = 0;
  int64_t calls_ = 0;
  Worker* worker_ = nullptr;
  std::unique_ptr<Worker> own_worker_;  // a subgroup has none; last: it uses all of the above
};

}  // namespace retort::comm
