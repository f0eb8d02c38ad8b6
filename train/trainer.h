// When things happen: steps, metrics, validation, checkpoints, stopping. The numerics are in step.h.
// Everything a trainer uses is made by its caller (launch/), so train/ knows no recipes, teachers or grids.
// Collective. Metrics go to the console, metrics.jsonl and TensorBoard on rank 0.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "core/log.h"
#include "core/section.h"
#include "train/checkpoint.h"
#include "train/schedule.h"
#include "train/step.h"

namespace retort::train {

struct TrainOptions {
  int64_t steps = 1000;
  double clip_norm = 1.0;         // 0: no clipping
  std::string precision = "auto";  // auto | fp32 | bf16
  std::string init = "gpt2";
  double init_std = 0.02;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  int64_t log_every = 10;          // steps
  int64_t validate_every = 0;      // steps; 0: at the end only
  int64_t checkpoint_every = 100;  // steps
  int64_t keep_checkpoints = 2;
  int64_t max_skipped = 3;         // non-finite updates in a row before the run stops (exit 77)
  int64_t max_failed_saves = 3;    // failed checkpoints in a row before the run stops (exit 74)
  void describe(Section& s);
};

struct TrainReport {
  int64_t steps = 0, tokens = 0;   // over the whole run, resumed parts included
  double seconds = 0;              // training time, resumed parts included, validation and saves excluded
  double final_loss = 0;
  bool preempted = false;          // stopped by a signal after saving
};

struct TrainerParts {
  StepParts step;
  const data::BatchStream& stream;
  FileSystem& files;
  Log& log;
  Path directory;                  // the run (or stage) directory
  std::string recipe;              // resolved, stored in checkpoints
  formats::Json facts;             // model spec, tokenizer: stored in checkpoints as they are
  // Called on all ranks with the step; returns named figures (validation loss). May be empty.
  std::function<std::map<std::string, double>(int64_t step)> validate;
  // Before the step's forward pass, on all ranks: where a weight map changes its behaviour (QAT start).
  std::function<void(int64_t step)> before_step;
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler
};

class Trainer {
 public:
  Trainer(TrainerParts parts, TrainOptions options, int64_t micro_batches);
  // Continues from the newest valid checkpoint in `directory` when `resume`; trains to options.steps.
  TrainReport run(bool resume);

 private:
  struct State;
  TrainerParts parts_;
  TrainOptions options_;
  int64_t micro_batches_;
};

}  // namespace retort::train
