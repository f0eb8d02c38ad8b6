#include "recipes/on_ranks.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include "comm/flight.h"
#include "comm/staged_comm.h"
#include "comm/together.h"
#include "core/error.h"
#include "recipes/data_options.h"
#include "train/leaf_sum.h"

namespace retort::recipes {
namespace {

constexpr double kHeldUp = 0.05;  // of the time: worth a line

void tell_straggler(comm::Comm& comm, Log& log) {
  const std::optional<comm::Flight::Straggler> slow =
      comm.flight() ? comm.flight()->straggler() : std::nullopt;
  if (slow && slow->seconds >= kHeldUp * slow->of)
    log.info(
        "rank {} has held the others up for {:.1f} s of {:.1f}: the collectives of each waited so much "
        "longer than its own",
        slow->rank, slow->seconds, slow->of);
}

// A group for tensors on devices: by NCCL, or through host memory, which is what every other back end works on.
std::unique_ptr<comm::Comm> of_devices(const StageContext& context, comm::Comm& comm, Log& log) {
  const std::string& wanted = context.stage.get<ParallelOptions>().transport;
  check<ConfigError>(wanted != "nccl" || comm::nccl_available(),
                     "parallel.transport: nccl is not in this build; take host or auto");
  const bool nccl =
      context.device.is_cuda() && wanted != "host" && (wanted == "nccl" || comm::nccl_available());
  log.info("tensors travel between the ranks' devices {}", nccl ? "by NCCL" : "through host memory");
  if (!nccl) return comm::make_staged_comm(comm);
  return comm::make_nccl_comm(comm, train::sum_leaves);
}

StageOutcome in_group(StageContext& context, comm::Comm& comm, Log& log, RankBody body) {
  // What names no device, NCCL among it, takes the thread's.
  const c10::DeviceGuard on(context.device);
  const auto group = context.device.is_cpu() || comm.size() == 1 ? nullptr : of_devices(context, comm, log);
  StageOutcome outcome = body(context, group ? *group : comm, log);
  tell_straggler(comm, log);
  return outcome;
}

at::Device device_of(int rank, const at::Device& first) {
  if (first.is_cpu()) return first;
  return {first.type(), static_cast<c10::DeviceIndex>(first.index() + rank)};
}

}  // namespace

StageOutcome on_ranks(StageContext& context, RankBody body) {
  const int64_t ranks = context.stage.get<ParallelOptions>().ranks;
  if (context.comm.size() > 1 || ranks == 1) return in_group(context, context.comm, context.log, body);
  StageContext shared = context;
  shared.threads = std::max<int64_t>(1, context.threads / ranks);
  StageOutcome outcome;
  try {
    comm::run_thread_ranks(static_cast<int>(ranks), [&](comm::Comm& comm) {
      StageContext mine = shared;
      mine.device = device_of(comm.rank(), context.device);
      if (comm.flight()) comm.flight()->write_to(context.alone() ? context.directory : context.run);
      Log quiet(stderr, fmt::format("rank {}: ", comm.rank()), true);
      StageOutcome of_rank = in_group(mine, comm, comm.rank() == 0 ? context.log : quiet, body);
      if (comm.rank() == 0) outcome = std::move(of_rank);
    });
  } catch (const comm::SharedError& error) {
    throw Error(error.what(), error.code());  // for this process it is an ordinary one
  }
  at::set_num_threads(static_cast<int>(context.threads));  // the ranks set the process's
  return outcome;
}

}  // namespace retort::recipes
