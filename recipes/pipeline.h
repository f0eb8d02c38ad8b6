// Runs a recipe's stages in order, below run.dir, whose files docs/formats.md lists. Equal hash (recipes/identity.h): a
// finished stage is skipped and an unfinished one continues. Another: the old work is put aside
// (recipes/stage_directory.h) and the stage begins again, or goes on from it where a smaller length is all that differs
// (docs/reliability.md). Collective: before each stage the ranks compare what its inputs hold for them (ConfigError).
// One process (or group) at a time holds the run directory; a second one is refused (IoError).
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
  bool strict = false;  // a damaged checkpoint is an error, and none before it is taken (train/checkpoint.h)
  int64_t threads = 1;  // of each process
  kernels::CpuTuning tuning = {};
  at::Device device = at::kCPU;
  int64_t profile = 0;  // steps of each training stage: train/profile.h
  // A stage whose numbers went wrong (kNonFinite) is left out together with what needs it, and the others are run; what reads
  // results alone, a report, is among these.
  bool past_non_finite = false;
};

// kDone, kPreempted when stopped, or kNonFinite where stages were left out. Products (tables, samples) go to stdout on rank 0.
ExitCode run_pipeline(const Recipe& recipe, const PipelineOptions& options, comm::Comm& comm,
                      FileSystem& files, Log& log, const std::atomic<bool>& stop);

// The training stage that continues `checkpoint`: the one of its stage's name, or the only one. ConfigError.
std::string stage_to_resume(const Recipe& recipe, const Path& checkpoint);

}  // namespace retort::recipes
