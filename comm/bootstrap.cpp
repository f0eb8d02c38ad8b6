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

// The number that a variable holds; `absent` when it is not set.
int64_t number_in(const Environment& environment, const std::string& name, int64_t least, int64_t absent) {
  const std::optional<std::string> text = environment(name);
  if (!text) return absent;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  check<ConfigError>(error == std::errc() && end == text->data() + text->size() && value >= least,
                     "[launch] {} must be a number >= {}, got \"{}\"", name, least, *text);
  return value;
}

TcpMeeting meeting_of(const Environment& environment, const std::string& rank, int64_t ranks) {
  TcpMeeting out;
  const std::optional<std::string> host = environment("MASTER_ADDR");
  check<ConfigError>(host.has_value(),
                     "[launch] {} and {} ranks are set, but not MASTER_ADDR, the address of rank 0", rank,
                     ranks);
  out.host = *host;
  out.port = static_cast<int>(number_in(environment, "MASTER_PORT", 1, out.port));
  out.rank = static_cast<int>(number_in(environment, rank, 0, 0));
  out.size = static_cast<int>(ranks);
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
  if (wanted != "auto") return {std::string(wanted), "asked for", 0, {}};
  if (const std::optional<std::string> found = mpi_launcher(environment)) {
    int64_t ranks = 0;
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
      if (ranks == 0) ranks = number_in(environment, name, 1, 0);
    return {ranks == 1 ? "self" : "mpi", *found, ranks, {}};
  }
  if (const int64_t world = number_in(environment, "WORLD_SIZE", 1, 1); world > 1)
    for (const char* rank : {"RANK", "JOB_COMPLETION_INDEX"})
      if (environment(rank)) return tcp_launch(rank, "WORLD_SIZE", meeting_of(environment, rank, world));
  if (const int64_t tasks = number_in(environment, "SLURM_STEP_NUM_TASKS", 1, 1);
      tasks > 1 && environment("SLURM_PROCID"))
    return tcp_launch("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", slurm_meeting(environment, tasks));
  return {"self", "no launcher", 1, {}};
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
