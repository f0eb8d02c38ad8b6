// A group of ranks. Every rank calls the same collectives in the same order; each acts on dense tensors in
// host memory, in place, and returns a Pending whose wait() ends when the result is there. In between the
// caller may compute, which is how gradient reduction overlaps the backward pass. Sums are a balanced binary
// tree over the ranks, ((r0+r1)+(r2+r3))+..., whatever the back end (docs/architecture.md explains why).
//
// One rank's Comm is used from one thread; its worker thread runs the collectives in order. Throws CommError,
// and the group is unusable after it, when ranks disagree, a peer fails or leaves, or the watchdog's time is
// up.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/leaf_sum.h"

namespace retort::comm {

class Flight;

enum class Reduce { kSum, kMax, kMin };

// An operation under way. wait() returns when it is done and rethrows its error; calling it twice is fine.
class Pending {
 public:
  Pending() = default;  // already done
  explicit Pending(std::shared_future<void> done) : done_(std::move(done)) {}
  void wait() const {
    if (done_.valid()) done_.get();
  }

 private:
  std::shared_future<void> done_;
};

// Back ends: self (a world of one is a real group: every collective is the identity), threads (ranks as
// threads of one process, for tests and for one machine), MPI, TCP; NCCL for tensors on CUDA devices. Every
// collective first compares itself with its peers', so that ranks which call different ones are told both;
// the watchdog's error tells the operation, its number and the missing ranks. bf16 and f16 are summed in f32
// and rounded once.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // "self", "threads", "mpi", "tcp"

  virtual Pending all_reduce(at::Tensor tensor, Reduce reduce) = 0;
  // The sum of a tree of size() * leaves leaves, of which this rank holds the run rank() * leaves ...: row i of
  // nodes_PN is the sum of its i-th complete subtree (comm/tree_sum.h), P = most_subtrees(leaves, size()), and
  // rows that it does not need may hold anything. Row 0 becomes the sum, the others are undefined.
  virtual Pending sum_tree(at::Tensor nodes_PN, int64_t leaves) = 0;
  virtual Pending broadcast(at::Tensor tensor, int root) = 0;
  // out[r] becomes rank r's `in`; out is contiguous with size() rows of in's shape.
  virtual Pending all_gather(at::Tensor out, at::Tensor in) = 0;
  // out[p] becomes the run of rank p's `in_N` that is this rank's: elements [bounds[rank()], bounds[rank() + 1]).
  // The bounds, size() + 1 of them from 0 to N, are the same on every rank. With the tree of tree_sum.h over out,
  // a sum goes to the ranks that own its parts.
  virtual Pending all_to_all(std::vector<at::Tensor> out, at::Tensor in_N, std::vector<int64_t> bounds) = 0;
  // Sends and receives that go on together: send[p] goes to rank p, whose receive[this rank] has its size and dtype; an
  // undefined tensor is no message, and what a rank sends itself is copied. Every rank of the group calls it, also
  // one without messages; a pair of ranks that trades apart is a subgroup.
  virtual Pending exchange(std::vector<at::Tensor> send, std::vector<at::Tensor> receive) = 0;
  // Waits for every rank, for work that some ranks do alone: as long as all of them live, up to
  // CommOptions::alone_seconds. A peer that fails, leaves or gives no sign of life ends it.
  virtual void barrier() = 0;
  // Prints `why` on stderr and ends every rank of the group now, with this process exit code, for an error
  // that cannot be shared. Thread ranks are one process and end with it: throw there instead.
  [[noreturn]] virtual void abort(const std::string& why, int exit_code) = 0;
  // These ranks as a group of their own, this one among them, ranked as they are listed: each of them makes it alike. Its
  // collectives run in turn with this one's, and all of this one's rules are its own. This one outlives it.
  virtual std::shared_ptr<Comm> subgroup(const std::vector<int>& ranks) = 0;
  // What this rank's collectives did last (comm/flight.h); nullptr where there is nothing to wait for.
  virtual Flight* flight() { return nullptr; }

  // `out` becomes the sum over all ranks, as a tree, of the run of in_N that is this rank's, as all_to_all() cuts it.
  Pending reduce_scatter(at::Tensor out, at::Tensor in_N, std::vector<int64_t> bounds);
  // The subgroup of the ranks that give this number, in their order. Collective, and blocking.
  std::shared_ptr<Comm> split(int64_t colour);

  // Small blocking conveniences over the above.
  double reduce(double value, Reduce how);
  int64_t reduce(int64_t value, Reduce how);
  std::string broadcast_text(const std::string& text, int root = 0);
  // True when `mine` is true on every rank: the vote before a decision that all must share.
  bool all_agree(bool mine);
};

struct CommOptions {
  // Seconds that a collective waits for its peers before it throws a CommError that names them. The default
  // is $RETORT_COMM_TIMEOUT, else 600.
  double timeout_seconds = default_timeout_seconds();
  // Seconds that a barrier waits for a rank that lives. The default is $RETORT_COMM_ALONE_TIMEOUT, else a day.
  double alone_seconds = default_alone_seconds();
  static double default_timeout_seconds();  // ConfigError where the variable is no positive number
  static double default_alone_seconds();
};

std::unique_ptr<Comm> make_self_comm();

// Runs body(comm) once for each of `ranks` threads that form a group, and returns when all have. The first
// exception of any rank aborts the others' collectives and is rethrown here.
void run_thread_ranks(int ranks, const std::function<void(Comm&)>& body, const CommOptions& options = {});

// MPI, from libretort_mpi.so beside the program, which is opened here. ConfigError where that or libmpi is missing,
// CommError where no launcher started the process. Once a process: it initialises
// MPI, and finalises it with the object. Keep it outside the try block whose handler calls abort(): destroyed
// by an exception, it ends the group itself.
std::unique_ptr<Comm> make_mpi_comm(const CommOptions& options = {});
std::string mpi_missing();  // why this machine cannot use it; "" where it can

// TCP between processes that meet at an address: those that torchrun, Slurm without PMI or Kubernetes starts.
// A rank that ends, in whatever way, ends its peers' collectives.
struct TcpMeeting {
  std::string host;  // where the ranks meet
  int port = 29500;
  int rank = 0, size = 1;
  bool served = false;        // by torchrun's agent; else by rank 0
  std::string attempt = "0";  // keeps a restarted group apart from the last one
};
std::unique_ptr<Comm> make_tcp_comm(const TcpMeeting& at, const CommOptions& options = {});

// NCCL for CUDA tensors, as a wire (comm/device_comm.h); CPU tensors, barriers and what is compared go to `bootstrap`,
// which must outlive it. The current device is this rank's. Sums are the tree, by `sum_of`.
// Collective over `bootstrap`. It has not run on more than one GPU.
std::unique_ptr<Comm> make_nccl_comm(Comm& bootstrap, LeafSum sum_of = sum_in_pairs);
bool nccl_available();  // built with NCCL

}  // namespace retort::comm
