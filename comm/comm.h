// A group of ranks. Collectives act on dense CPU tensors in place, are called by every rank in the same
// order, and return a Pending whose wait() ends when the result is there; between the two the caller may
// compute, which is how gradient reduction overlaps the backward pass.
//
// Sums are deterministic: all_reduce(kSum) adds the ranks' values as a balanced binary tree over the ranks,
// ((r0+r1)+(r2+r3))+..., whatever the backend. Micro-batches are summed by the same tree (train/grad_sync.h),
// so 1 rank x 4 micro-batches, 4 ranks and 2 ranks x 2 give the same bits. (A pairwise tree also errs less
// than a running sum.) bf16 and f16 are summed in f32 and rounded once.
//
// Back ends: self (a world of one is a real group: every collective is the identity), threads (ranks as
// threads of one process, for tests and for one machine), MPI, TCP. Thread rule: one rank's Comm is used from
// one thread; its worker thread runs the collectives in order.
//
// Every collective first compares itself with its peers'. CommError, and an unusable group, follow when ranks
// call different collectives (both sides are named), when a peer fails or leaves, and when the watchdog's
// time is over (operation, number and missing ranks are named); only barrier() waits without the watchdog.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace retort::comm {

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

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // "self", "threads", "mpi", "tcp"

  virtual Pending all_reduce(at::Tensor tensor, Reduce reduce) = 0;
  virtual Pending broadcast(at::Tensor tensor, int root) = 0;
  // out[r] becomes rank r's `in`; out is contiguous with size() rows of in's shape.
  virtual Pending all_gather(at::Tensor out, at::Tensor in) = 0;
  // Waits for every rank however long that takes: for work that some ranks do alone. The watchdog leaves it
  // be; a peer that fails or leaves ends it.
  virtual void barrier() = 0;
  // Ends every rank of the group, now, with this process exit code, `why` on stderr first. Called when an
  // error cannot be shared. Thread ranks are one process and end with it: there, prefer to throw.
  [[noreturn]] virtual void abort(const std::string& why, int exit_code) = 0;

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
  static double default_timeout_seconds();  // ConfigError where the variable is no positive number
};

std::unique_ptr<Comm> make_self_comm();

// Runs body(comm) once for each of `ranks` threads that form a group, and returns when all have. The first
// exception of any rank aborts the others' collectives and is rethrown here.
void run_thread_ranks(int ranks, const std::function<void(Comm&)>& body, const CommOptions& options = {});

// MPI, when this build has it and a launcher started us (else CommError that says which). Once a process: it
// initialises MPI, and finalises it with the object. Keep it outside the try block whose handler calls
// abort(): destroyed by an exception, it ends the group itself.
std::unique_ptr<Comm> make_mpi_comm(const CommOptions& options = {});
bool mpi_available();  // built with MPI

// TCP between processes that found each other by an address: where torchrun, Slurm without PMI or Kubernetes
// starts them. A rank that ends, however, ends its peers' collectives.
struct TcpMeeting {
  std::string host;  // where the ranks meet
  int port = 29500;
  int rank = 0, size = 1;
  bool served = false;        // by torchrun's agent; else rank 0 serves
  std::string attempt = "0";  // keeps a restarted group apart from the last one
};
std::unique_ptr<Comm> make_tcp_comm(const TcpMeeting& at, const CommOptions& options = {});

// NCCL for CUDA tensors; CPU tensors, barriers and abort go to `bootstrap`, which must outlive it. The
// current device is this rank's. Sums are NCCL's, not the tree above: equal on every rank, but not to other
// splits. Collective over `bootstrap`. Compiled and linked by us; it has not run on more than one GPU.
std::unique_ptr<Comm> make_nccl_comm(Comm& bootstrap);
bool nccl_available();  // built with NCCL

}  // namespace retort::comm
