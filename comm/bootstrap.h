// Finds how this process was started, and joins its group.
//
//   found                                                      back end
//   an explicit choice, "self" or "mpi"                        that one
//   OMPI_COMM_WORLD_SIZE, PMIX_RANK or PMI_RANK                mpi (self when the size is known to be 1)
//   WORLD_SIZE > 1, MASTER_ADDR, and RANK (torchrun) or
//     JOB_COMPLETION_INDEX (a Kubernetes indexed job)          tcp, at MASTER_PORT, else 29500
//   SLURM_PROCID and SLURM_STEP_NUM_TASKS > 1 (srun            tcp, at the step's first node and a port made
//     without PMI; a batch script alone has no step)           of the job's number; MASTER_ADDR and
//                                                              MASTER_PORT go before
//   nothing                                                    self
//
// Called once, at the start of a process, by its main thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "comm/comm.h"

namespace retort::comm {

using Environment = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> process_environment(const std::string& name);

struct Launch {
  std::string backend;  // "self", "mpi" or "tcp"
  std::string found;    // "OMPI_COMM_WORLD_SIZE=2", "no launcher"
  int64_t ranks = 0;    // as the launcher says; 0 where it does not
  TcpMeeting meeting;   // of "tcp"
};

// The table above, without starting anything. `wanted`: "auto", "self" or "mpi" (else ConfigError).
Launch find_launch(std::string_view wanted, const Environment& environment);
// The variable by which an MPI launcher shows itself, with its value.
std::optional<std::string> mpi_launcher(const Environment& environment);

// Where a rank stands among those on its machine: which GPU it takes. Collective.
struct LocalRank {
  int rank = 0, size = 1;
};
LocalRank find_local_rank(Comm& comm);

struct Started {
  std::unique_ptr<Comm> comm;
  LocalRank local;
  std::string sentence;  // for the log: "rank 0 of 2 over mpi (OMPI_COMM_WORLD_SIZE=2), 2 on this machine"
};
Started start_comm(std::string_view wanted = "auto", const CommOptions& options = {});

}  // namespace retort::comm
