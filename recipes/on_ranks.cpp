#include "recipes/on_ranks.h"

#include <ATen/Parallel.h>

#include "comm/staged_comm.h"
#include "comm/together.h"
#include "recipes/data_options.h"

namespace retort::recipes {
namespace {

// What travels between ranks on devices goes through host memory, which is what every back end works on.
StageOutcome in_group(StageContext& context, comm::Comm& comm, Log& log, RankBody body) {
  if (context.device.is_cpu() || comm.size() == 1) return body(context, comm, log);
  const auto staged = comm::make_staged_comm(comm);
  return body(context, *staged, log);
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
