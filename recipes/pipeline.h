// Runs a recipe's stages in order, below run.dir:
//
//   recipe.yaml            the resolved recipe of the last start
//   exit.json              how the last start ended: {"code", "stage", "message"}; none while it runs, or if
//                          it was killed
//   STAGE/stage.json       {"hash", "recipe", "length", "from", "from_length"}: what the work in here belongs to
//                          and what it goes on from, written before it begins
//   STAGE/result.json      {"hash", "stage", "kind", figures...}, written last: the stage is finished
//   STAGE.replaced/        what a changed recipe put aside; then STAGE.replaced.2 and so on
//
// Equal hash (recipes/identity.h): a finished stage is skipped and an unfinished one continues, also one that
// was put aside. Another: the stage is done from its start, its old directory is put aside
// (recipes/stage_directory.h), and a warning says where and which keys changed; but where the old work differs
// in a smaller length alone (train.steps, train.epochs), the stage goes on from its newest checkpoint that an
// undisturbed run would have come to (docs/reliability.md). Collective: before each stage the ranks compare what its inputs hold for them (ConfigError). One process (or group) at a time holds the run
// directory; a second one is refused (IoError).
#pragma once

#include <atomic>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "kernels/cpu_tuning.h"
#include "recipes/recipe.h"

namespace retort::recipes {

struct PipelineOptions {
  bool start_over = false;  // put finished work aside
  std::string only = {};    // a kind: its stages and what they need are run, the others left; or ""
  Path resume_from = {};    // a checkpoint outside the run that a training stage continues; or ""
  int64_t threads = 1;      // of each process
  kernels::CpuTuning tuning = {};
};

// kDone, or kPreempted when stopped. Products (tables, samples) go to stdout on rank 0.
ExitCode run_pipeline(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm,
                      FileSystem& files, Log& log, const std::atomic<bool>& stop);

// The training stage that continues `checkpoint`: the one of its stage's name, or the only one. ConfigError.
std::string stage_to_resume(const Recipe& recipe, const Path& checkpoint);

}  // namespace retort::recipes
