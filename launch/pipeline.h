// Runs a recipe's stages in order, below run.dir:
//
//   recipe.yaml            the resolved recipe of the last start
//   exit.json              how the last start ended: {"code", "stage", "message"}; none while it runs, or if
//                          it was killed
//   STAGE/stage.json       {"hash", "recipe"}: what the work in here belongs to, written before it begins
//   STAGE/result.json      {"hash", "stage", "kind", figures...}, written last: the stage is finished
//   STAGE.replaced/        what a changed recipe put aside; then STAGE.replaced.2 and so on
//
// A stage's hash is over its own effective recipe, the text and files that it reads, and the results of the
// stages that it takes something from. Equal hash: a finished stage is skipped and an unfinished one
// continues, also one that was put aside. Another: the stage is done anew, its old directory put aside
// (launch/stage_directory.h) with a warning that says where and which keys changed. What does not count: ranks
// and threads (at equal threads a rank they change no bit, and other threads change a product's last ones at
// most), and how training is watched and saved (train.log_every, validate_every, checkpoint_every,
// keep_checkpoints, max_skipped, max_failed_saves). Collective. One process (or group) at a time holds the run
// directory; a second one is refused (IoError).
#pragma once

#include <atomic>

#include "comm/comm.h"
#include "core/file.h"
#include "core/log.h"
#include "kernels/cpu_tuning.h"
#include "recipes/recipe.h"

namespace retort::launch {

struct PipelineOptions {
  bool anew = false;      // put finished work aside
  std::string only = {};  // a kind: its stages and what they need are run, the others left; or ""
  Path resume_from = {};  // a checkpoint outside the run that a training stage continues; or ""
  int64_t threads = 1;    // of each process
  kernels::CpuTuning tuning = {};
};

// kDone, or kPreempted when stopped. Products (tables, samples) go to stdout on rank 0.
ExitCode run_pipeline(const recipes::Recipe& recipe, const PipelineOptions& options, comm::Comm& comm,
                      FileSystem& files, Log& log, const std::atomic<bool>& stop);

// The stage as text, without what may differ between runs whose results are equal but for the rounding of
// products (names, threads, ranks, intervals of logging and saving).
std::string stage_identity(const recipes::Recipe& recipe, const recipes::Stage& stage);
std::string stage_hash(const recipes::Recipe& recipe, const recipes::Stage& stage, const Path& run);
// The training stage that continues `checkpoint`: the one of its stage's name, or the only one. ConfigError.
std::string stage_to_resume(const recipes::Recipe& recipe, const Path& checkpoint);

}  // namespace retort::launch
