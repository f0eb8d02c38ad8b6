#include "comm/bootstrap.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <charconv>
#include <climits>
#include <cstdlib>

#include "core/digest.h"
#include "core/error.h"
#include "core/nearest.h"

namespace retort::comm {
namespace {

constexpr const char* kAlone = "; --comm self runs this process alone";

constexpr int64_t kMostPort = 65535, kMostRanks = INT_MAX;

// The number that a variable holds; `absent` when it is not set.
int64_t number_in(const Environment& environment, const std::string& name, int64_t least, int64_t absent,
                  int64_t most = INT64_MAX) {
  const std::optional<std::string> text = environment(name);
  if (!text) return absent;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  const bool number = error == std::errc() && end == text->data() + text->size();
  check<ConfigError>(
      number && value >= least && value <= most, "[launch] {} must be a number {}, got \"{}\"", name,
      most == INT64_MAX ? fmt::format(">= {}", least) : fmt::format("in [{}, {}]", least, most), *text);
  return value;
}

TcpMeeting meeting_of(const Environment& environment, const std::string& rank, int64_t ranks) {
  TcpMeeting out;
  const std::optional<std::string> host = environment("MASTER_ADDR");
  check<ConfigError>(host.has_value(),
                     "[launch] {} and {} ranks are set, but not MASTER_ADDR, the address of rank 0{}", rank,
                     ranks, kAlone);
  out.host = *host;
  check<ConfigError>(ranks <= kMostRanks, "[launch] there can be at most {} ranks, got {}", kMostRanks,
                     ranks);
  out.port = static_cast<int>(number_in(environment, "MASTER_PORT", 1, out.port, kMostPort));
  out.size = static_cast<int>(ranks);
  out.rank = static_cast<int>(number_in(environment, rank, 0, 0, ranks - 1));
  out.served = environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
  out.attempt = environment("TORCHELASTIC_RESTART_COUNT").value_or("0");
  return out;
}

// "n[03-05,9],login" is n03 and others.
std::string first_host(const std::string& list) {
  const size_t end = list.find_first_of("[,");
  std::string out = list.substr(0, end);
  if (end == std::string::npos || list[end] == ',') return out;
  const size_t digits = list.find_first_of("-,]", end);
  return out + list.substr(end + 1, digits - end - 1);
}

TcpMeeting slurm_meeting(const Environment& environment, int64_t tasks) {
  const auto with_defaults = [&](const std::string& name) -> std::optional<std::string> {
    if (const std::optional<std::string> own = environment(name)) return own;
    if (name == "MASTER_PORT")
      return std::to_string(20000 + number_in(environment, "SLURM_JOB_ID", 0, 0) % 20000);
    if (name != "MASTER_ADDR") return std::nullopt;
    for (const char* nodes : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"})
      if (const std::optional<std::string> list = environment(nodes)) return first_host(*list);
    return std::nullopt;
  };
  return meeting_of(with_defaults, "SLURM_PROCID", tasks);
}

Launch tcp_launch(const std::string& rank, const std::string& ranks, const TcpMeeting& meeting) {
  return {"tcp",
          fmt::format("{}={}, {}={}, at {}:{}", rank, meeting.rank, ranks, meeting.size, meeting.host,
                      meeting.port),
          meeting.size, meeting};
}

using FoundLaunch = std::optional<Launch>;  // nothing: the variables tell of no group

FoundLaunch by_mpi(const Environment& environment) {
  const std::optional<std::string> found = mpi_launcher(environment);
  if (!found) return std::nullopt;
  int64_t ranks = 0;
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
    if (ranks == 0) ranks = number_in(environment, name, 1, 0);
  return Launch{ranks == 1 ? "self" : "mpi", *found, ranks, {}};
}

FoundLaunch by_torchrun(const Environment& environment) {
  const int64_t world = number_in(environment, "WORLD_SIZE", 1, 1);
  if (world == 1) return std::nullopt;
  for (const char* rank : {"RANK", "JOB_COMPLETION_INDEX"})
    if (environment(rank)) return tcp_launch(rank, "WORLD_SIZE", meeting_of(environment, rank, world));
  fail<ConfigError>(
      "[launch] WORLD_SIZE={} is set, but neither RANK nor JOB_COMPLETION_INDEX, this process's number{}",
      world, kAlone);
}

// Kubeflow's Trainer leaves torchrun's own options in the environment, one set a pod. torchrun's children
// inherit them beside what it tells them itself.
FoundLaunch by_kubeflow(const Environment& environment) {
  const std::optional<std::string> nodes = environment("PET_NNODES");
  if (!nodes || *nodes == "1" || environment("TORCHELASTIC_RUN_ID")) return std::nullopt;
  check<ConfigError>(
      nodes->find(':') == nodes->npos,
      "[launch] PET_NNODES={} is a range of nodes, which only torchrun makes a group of: start "
      "torchrun --no-python retort run ..., or set a number of nodes{}",
      *nodes, kAlone);
  const int64_t ranks = number_in(environment, "PET_NNODES", 1, 1);
  const std::string processes = environment("PET_NPROC_PER_NODE").value_or("1");
  check<ConfigError>(
      processes == "1",
      "[launch] PET_NPROC_PER_NODE={} asks for several processes a pod, which only torchrun "
      "starts: start torchrun --no-python retort run ..., or set the TrainJob's numProcPerNode "
      "to 1{}",
      processes, kAlone);
  check<ConfigError>(environment("PET_NODE_RANK").has_value(),
                     "[launch] PET_NNODES={} is set, but not PET_NODE_RANK, this pod's number{}", *nodes,
                     kAlone);
  check<ConfigError>(environment("PET_MASTER_ADDR").has_value(),
                     "[launch] PET_NNODES={} is set, but not PET_MASTER_ADDR, the address of pod 0{}", *nodes,
                     kAlone);
  const Environment named = [&](const std::string& name) {
    return environment(name.starts_with("MASTER_") ? "PET_" + name : name);
  };
  return tcp_launch("PET_NODE_RANK", "PET_NNODES", meeting_of(named, "PET_NODE_RANK", ranks));
}

FoundLaunch by_slurm(const Environment& environment) {
  const int64_t tasks = number_in(environment, "SLURM_STEP_NUM_TASKS", 1, 1);
  if (tasks == 1 || !environment("SLURM_PROCID")) return std::nullopt;
  return tcp_launch("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", slurm_meeting(environment, tasks));
}

// What mpirun says of its processes, where they are to meet without it.
FoundLaunch by_mpirun_without_mpi(const Environment& environment) {
  const int64_t ranks = number_in(environment, "OMPI_COMM_WORLD_SIZE", 1, 1);
  if (ranks == 1) return std::nullopt;
  return tcp_launch("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                    meeting_of(environment, "OMPI_COMM_WORLD_RANK", ranks));
}

// Of a process that would train alone.
void refuse_part_of_group(const Environment& environment) {
  const std::optional<std::string> rank = environment("RANK"), world = environment("WORLD_SIZE");
  check<ConfigError>(!rank || world, "[launch] RANK={} is set, but not WORLD_SIZE, the number of ranks{}",
                     rank.value_or(""), kAlone);
  check<ConfigError>(number_in(environment, "RANK", 0, 0) == 0,
                     "[launch] RANK={} is set, but WORLD_SIZE is {}{}", rank.value_or(""), world.value_or(""),
                     kAlone);
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value && *value != '\0' ? std::optional<std::string>(value) : std::nullopt;
}

std::vector<std::string> comm_choices() { return {"auto", "self", "mpi", "tcp"}; }

std::optional<std::string> mpi_launcher(const Environment& environment) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (const std::optional<std::string> value = environment(name)) return fmt::format("{}={}", name, *value);
  return std::nullopt;
}

Launch find_launch(std::string_view wanted, const Environment& variables) {
  const std::vector<std::string> known = comm_choices();
  check<ConfigError>(std::ranges::count(known, wanted) == 1, "[launch] unknown back end \"{}\"{}; known: {}",
                     wanted, did_you_mean(wanted, known), fmt::join(known, ", "));
  if (wanted == "self" || wanted == "mpi") return {std::string(wanted), "asked for", 0, {}};
  const Environment environment = [&](const std::string& name) {
    const std::optional<std::string> value = variables(name);
    return value == "" ? std::nullopt : value;
  };
  const bool tcp = wanted == "tcp";
  for (const auto find : {by_mpi, by_torchrun, by_kubeflow, by_slurm, by_mpirun_without_mpi})
    if (FoundLaunch found = tcp && find == by_mpi ? std::nullopt : find(environment)) return *found;
  check<ConfigError>(!tcp,
                     "[launch] --comm tcp: the environment tells of no group; set WORLD_SIZE, RANK, and "
                     "MASTER_ADDR, the address of rank 0");
  refuse_part_of_group(environment);
  return {"self", "no launcher", 1, {}};
}

LocalRank find_local_rank(Comm& comm) {
  char host[HOST_NAME_MAX + 1] = {};
  ::gethostname(host, HOST_NAME_MAX);
  const auto here = comm.split(static_cast<int64_t>(xxh3(std::string_view(host))));
  return {here->rank(), here->size()};
}

Started start_comm(std::string_view wanted, const CommOptions& options) {
  const Launch launch = find_launch(wanted, process_environment);
  Started started;
  if (launch.backend == "mpi") {
    check<ConfigError>(mpi_missing().empty(),
                       "[launch] MPI is needed ({}), and it is not here: {}; --comm tcp goes without it",
                       launch.found, mpi_missing());
    started.comm = make_mpi_comm(options);
    check<ConfigError>(
        launch.ranks == 0 || launch.ranks == started.comm->size(),
        "[launch] {} started {} ranks, but MPI made a group of {}: start with the mpirun of the "
        "MPI that this program is built with",
        launch.found, launch.ranks, started.comm->size());
  } else if (launch.backend == "tcp") {
    started.comm = make_tcp_comm(launch.meeting, options);
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
