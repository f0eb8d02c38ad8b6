// Finds how this process was started, and joins its group. docs/launching.md has the table of launchers; a
// choice of "self" or "mpi" goes before it. Call it once, at the start of a process, from its main thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/comm.h"

namespace retort::comm {

// A variable that is set but empty is as one that is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> process_environment(const std::string& name);

struct Launch {
  std::string backend;  // "self", "mpi" or "tcp"
  std::string found;    // "OMPI_COMM_WORLD_SIZE=2", "no launcher"
  int64_t ranks = 0;    // 0 where the launcher does not tell
  TcpMeeting meeting;   // of "tcp"
};

// What a start would join, by these variables in this order:
//   OMPI_COMM_WORLD_SIZE, PMIX_RANK or PMI_RANK          mpi, or self where the size is known to be 1
//   WORLD_SIZE > 1, MASTER_ADDR, and RANK (torchrun)     tcp, at MASTER_PORT or 29500
//     or JOB_COMPLETION_INDEX (a Kubernetes indexed job)
//   PET_NNODES > 1, PET_MASTER_ADDR, PET_NODE_RANK and   tcp, at PET_MASTER_PORT or 29500
//     PET_NPROC_PER_NODE = 1 (Kubeflow Trainer)
//   SLURM_PROCID and SLURM_STEP_NUM_TASKS > 1 (srun      tcp, at MASTER_ADDR and MASTER_PORT, or the step's
//     without PMI; a batch script alone has no step)     first node and a port made from the job's number
//   none of them                                         self
// Variables that tell of several ranks, but not all that is needed to join them, or a rank or port that cannot
// be, are refused (ConfigError): a process that trained alone then would do what another does too.
// `wanted`: "auto", "self", "mpi", or "tcp", which passes over the first row (else ConfigError).
Launch find_launch(std::string_view wanted, const Environment& environment);
// The variable that shows an MPI launcher, with its value.
std::optional<std::string> mpi_launcher(const Environment& environment);
std::vector<std::string> comm_choices();  // what may be wanted

// A rank's number among those on its machine, which is the GPU that it takes. Collective.
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
