#include "recipes/on_ranks.h"

#include <ATen/Parallel.h>

#include "comm/together.h"
#include "recipes/data_options.h"

namespace retort::recipes {

StageOutcome on_ranks(StageContext& context, RankBody body) {
  const int64_t ranks = context.stage.get<ParallelOptions>().ranks;
  if (context.comm.size() > 1 || ranks == 1) return body(context, context.comm, context.log);
  StageContext shared = context;
  shared.threads = std::max<int64_t>(1, context.threads / ranks);
  StageOutcome outcome;
  try {
    comm::run_thread_ranks(static_cast<int>(ranks), [&](comm::Comm& comm) {
      StageContext mine = shared;
      Log quiet(stderr, fmt::format("rank {}: ", comm.rank()), true);
      StageOutcome of_rank = body(mine, comm, comm.rank() == 0 ? context.log : quiet);
      if (comm.rank() == 0) outcome = std::move(of_rank);
    });
  } catch (const comm::SharedError& error) {
    throw Error(error.what(), error.code());  // for this process it is an ordinary one
  }
  at::set_num_threads(static_cast<int>(context.threads));  // the ranks set the process's
  return outcome;
}

}  // namespace retort::recipes
