// What adding up gradients costs: the sum in the recipe's order over two thread ranks, over TCP, or, started by mpirun,
// over MPI, beside a copy of the same bytes in memory and, over MPI, beside MPI_Allreduce. Checks against f64, then
// times.
//
//   bench_comm threads|tcp [PAIRS]           two ranks: threads of this process, or two processes
//   mpirun -n 2 bench_comm mpi [PAIRS]
#include <fmt/core.h>
#include <mpi.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "bench/paired.h"
#include "comm/bootstrap.h"
#include "core/error.h"
#include "core/random.h"

namespace {

using namespace retort;

at::Tensor values(int64_t count, int rank) {
  at::Tensor out = at::empty({count}, at::kFloat);
  const Random random(1, "bench/comm", static_cast<uint64_t>(rank));
  for (int64_t i = 0; i < count; ++i)
    out.mutable_data_ptr<float>()[i] = static_cast<float>(random.uniform(static_cast<uint64_t>(i))) - 0.5F;
  return out;
}

void check_sum(comm::Comm& comm, int64_t count) {
  at::Tensor sum = values(count, comm.rank());
  comm.all_reduce(sum, comm::Reduce::kSum).wait();
  at::Tensor exact = at::zeros({count}, at::kDouble), size = at::zeros({count}, at::kDouble);
  for (int rank = 0; rank < comm.size(); ++rank) {
    const at::Tensor one = values(count, rank).to(at::kDouble);
    exact += one;
    size += one.abs();
  }
  const double error = ((sum.to(at::kDouble) - exact).abs() / size.clamp_min(1e-30)).max().item<double>();
  check<InternalError>(error <= 1.2e-7 * (comm.size() - 1), "a sum is off by {} of its terms", error);
}

bool plain_mpi(comm::Comm& comm, at::Tensor& tensor) {
  if (comm.name() != "mpi") return false;
  MPI_Allreduce(MPI_IN_PLACE, tensor.mutable_data_ptr(), static_cast<int>(tensor.numel()), MPI_FLOAT, MPI_SUM,
                MPI_COMM_WORLD);
  return true;
}

void tell(comm::Comm& comm, const char* peer, double mib, const bench::Paired& paired) {
  if (comm.rank() != 0) return;
  fmt::print(
      "{:>8} {:>8} {:>5.2f} MiB {:>9.3f} ms {:>9.3f} ms  wall x {:.2f} [{:.2f}, {:.2f}]  cpu x {:.2f} "
      "[{:.2f}, {:.2f}]\n",
      comm.name(), peer, mib, paired.ours.wall_ms, paired.peer.wall_ms, paired.wall.median, paired.wall.low,
      paired.wall.high, paired.cpu.median, paired.cpu.low, paired.cpu.high);
}

void race(comm::Comm& comm, int pairs) {
  for (const double mib : {0.0625, 1.0, 8.0, 64.0}) {
    const auto count = static_cast<int64_t>(mib * 262144);
    check_sum(comm, count);
    at::Tensor sum = values(count, comm.rank()), other = values(count, comm.rank());
    const at::Tensor source = values(count, comm.rank());
    const auto ours = [&] { comm.all_reduce(sum, comm::Reduce::kSum).wait(); };
    tell(comm, "copy", mib,
         bench::time_pairs(
             ours,
             [&] {
               std::memcpy(other.mutable_data_ptr(), source.const_data_ptr(),
                           static_cast<size_t>(count) * sizeof(float));
             },
             pairs));
    if (plain_mpi(comm, other))
      tell(comm, "MPI", mib,
           bench::time_pairs(
               ours, [&] { plain_mpi(comm, other); }, pairs));
    sum.zero_();
  }
  comm.barrier();
}

// The second process is a copy of this one, made before it has threads.
void race_over_tcp(int pairs) {
  const pid_t child = ::fork();
  comm::TcpMeeting meeting{.host = "127.0.0.1", .port = 29377, .rank = child == 0 ? 1 : 0, .size = 2};
  race(*comm::make_tcp_comm(meeting), pairs);
  if (child == 0) return;
  int status = 0;
  ::waitpid(child, &status, 0);
  check<InternalError>(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the other rank failed");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string over = argc > 1 ? argv[1] : "threads";
  const int pairs = argc > 2 ? std::atoi(argv[2]) : 30;
  ::setenv("RETORT_MPI_PLUGIN", RETORT_MPI_LIBRARY, 0);
  // MPI_Allreduce is called here while the worker of the group shows others that this rank lives.
  ::setenv("OMPI_MPI_THREAD_LEVEL", "3", 0);
  if (over == "threads")
    comm::run_thread_ranks(2, [&](comm::Comm& comm) { race(comm, pairs); });
  else if (over == "tcp")
    race_over_tcp(pairs);
  else
    race(*comm::start_comm(over).comm, pairs);
  return 0;
}
