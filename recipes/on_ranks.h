// A stage's work on every rank: the launch's processes when it has several, else parallel.ranks threads of
// this one, which share its processors; thread r has the r-th device from the process's own on. Returns rank 0's outcome in every process. An error of one rank ends
// the others' collectives and is thrown here as an ordinary one.
#pragma once

#include "recipes/stage_context.h"

namespace retort::recipes {

// `log` is quiet on all ranks but the first.
using RankBody = StageOutcome (*)(StageContext& context, comm::Comm& comm, Log& log);
StageOutcome on_ranks(StageContext& context, RankBody body);

}  // namespace retort::recipes
