#include "comm/bootstrap.h"

#include <unistd.h>

#include <charconv>
#include <climits>
#include <cstdlib>

#include "core/digest.h"
#include "core/error.h"
#include "core/nearest.h"

namespace retort::comm {
namespace {

// The number behind a variable, 0 when it is not set.
int64_t count_in(const Environment& environment, const std::string& name) {
  const std::optional<std::string> text = environment(name);
  if (!text) return 0;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  check<CommError>(error == std::errc() && end == text->data() + text->size() && value > 0,
                   "[launch] {} must be a positive number, got \"{}\"", name, *text);
  return value;
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<std::string> mpi_launcher(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (const std::optional<std::string> value = environment(name)) return fmt::format("{}={}", name, *value);
  return std::nullopt;
}

Launch find_launch(std::string_view wanted, const Environment& environment) {
  const std::vector<std::string> known = {"auto", "self", "mpi"};
  check<ConfigError>(std::ranges::count(known, wanted) == 1,
                     "[launch] unknown back end \"{}\"{}; known: auto, self, mpi", wanted,
                     did_you_mean(wanted, known));
  if (wanted != "auto") return {std::string(wanted), "asked for"};
  if (const std::optional<std::string> found = mpi_launcher(environment)) {
    const bool alone =
        count_in(environment, "OMPI_COMM_WORLD_SIZE") == 1 || count_in(environment, "PMI_SIZE") == 1;
    return {alone ? "self" : "mpi", *found};
  }
  const int64_t world = count_in(environment, "WORLD_SIZE");
  check<CommError>(
      !(world > 1 && environment("RANK") && environment("MASTER_ADDR")),
      "[launch] RANK, WORLD_SIZE={} and MASTER_ADDR are set, but a torchrun-style start is not supported "
      "yet: start with `mpirun -n {} retort ...`, or unset them",
      world, world);
  const int64_t tasks = count_in(environment, "SLURM_NTASKS");
  check<CommError>(
      !(tasks > 1 && environment("SLURM_PROCID")),
      "[launch] SLURM_PROCID and SLURM_NTASKS={} are set, but neither PMIX_RANK nor PMI_RANK: start with "
      "`srun --mpi=pmix retort ...` or `mpirun -n {} retort ...`, or ask for back end \"self\"",
      tasks, tasks);
  return {"self", "no launcher"};
}

LocalRank find_local_rank(Comm& comm) {
  char host[HOST_NAME_MAX + 1] = {};
  ::gethostname(host, HOST_NAME_MAX);
  const at::Tensor mine = at::full({1}, static_cast<int64_t>(xxh3(std::string_view(host))), at::kLong);
  const at::Tensor all = at::empty({comm.size()}, at::kLong);
  comm.all_gather(all, mine).wait();
  const at::Tensor here = all.eq(mine);
  return {here.slice(0, 0, comm.rank()).sum().item<int>(), here.sum().item<int>()};
}

Started start_comm(std::string_view wanted, const CommOptions& options) {
  const Launch launch = find_launch(wanted, process_environment);
  Started started;
  if (launch.backend == "mpi") {
    check<CommError>(
        mpi_available(),
        "[launch] MPI is needed ({}), but this build has none: configure with RETORT_MPI=ON, or start one "
        "process without a launcher",
        launch.found);
    started.comm = make_mpi_comm(options);
  } else {
    started.comm = make_self_comm();
  }
  started.local = find_local_rank(*started.comm);
  started.sentence =
      started.comm->size() == 1
          ? fmt::format("one process ({})", launch.found)
          : fmt::format("rank {} of {} over {} ({}), {} on this machine", started.comm->rank(),
                        started.comm->size(), started.comm->name(), launch.found, started.local.size);
  return started;
}

}  // namespace retort::comm
