// When things happen: steps, metrics, validation, checkpoints, stopping. The numerics are in step.h.
// Everything a trainer uses is made by its caller (launch/), so train/ knows no recipes, teachers or grids.
//
//   DIRECTORY/checkpoints/    checkpoint.h; in its `extra` the caller's facts and, under "train", the
//                             trainer's: tokens seen, last loss, skipped updates, the step's batch, how far
//                             each source was read, precision
//   DIRECTORY/metrics.jsonl   metrics.h
//   DIRECTORY/tensorboard/
//   DIRECTORY/progress.json   {"step", "seconds"}: wall-clock facts, which checkpoints must not hold
//
// Step s takes batch s * (R * G) + r * G + i for micro-batch i of rank r, so the step is the data position. A
// checkpoint is saved every checkpoint_every steps, at the end and when stopped. A save that fails is warned
// of and training goes on; IoError after max_failed_saves in a row, or when the last one of this process
// fails. Collective: every rank calls run(), stops at the same step and throws alike. Rank 0 writes.
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
  double clip_norm = 1.0;          // 0: no clipping
  std::string precision = "auto";  // auto | fp32 | bf16
  std::string init = "gpt2";
  double init_std = 0.0;
  OptimizerOptions optimizer;
  ScheduleOptions schedule;
  int64_t log_every = 10;          // steps
  int64_t validate_every = 0;      // steps; 0: at the end only
  int64_t checkpoint_every = 100;  // steps
  int64_t keep_checkpoints = 2;
  int64_t max_skipped = 3;       // non-finite updates in a row before the run stops (exit 77)
  int64_t max_failed_saves = 3;  // failed checkpoints in a row before the run stops (exit 74)
  void describe(Section& s);
};

struct TrainReport {
  int64_t steps = 0, tokens = 0;  // over the whole run, resumed parts included
  double seconds = 0;             // training time, resumed parts included, validation and saves excluded
  double final_loss = 0;          // of the last update
  bool preempted = false;         // stopped by a signal after saving
};

struct TrainerParts {
  StepParts step;
  const data::BatchStream& stream;
  FileSystem& files;
  Log& log;
  Path directory;       // the run (or stage) directory
  std::string recipe;   // resolved, stored in checkpoints
  formats::Json facts;  // model spec, tokenizer: stored in checkpoints as they are
  std::map<std::string, std::string> tokenizer = {};  // its files, stored in checkpoints
  // Called on all ranks with the updates done; returns named figures (validation loss). May be empty.
  std::function<std::map<std::string, double>(int64_t done)> validate;
  // Before the step's forward pass, on all ranks: where a weight map changes its behaviour (QAT start). It
  // may refresh working copies, but not bind them anew. After a resume its first call may be for the step
  // before.
  std::function<void(int64_t step)> before_step;
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler
  Path resume_from = {};                    // a checkpoint to continue when `directory` has none; or ""
};

class Metrics;  // train/metrics.h

class Trainer {
 public:
  // micro_batches: this rank's G.
  Trainer(TrainerParts parts, TrainOptions options, int64_t micro_batches);
  // Continues from the newest valid checkpoint in `directory`, if there is one. Trains to options.steps; a
  // run that is there already returns at once.
  TrainReport run();

 private:
  struct State;
  State restore();
  void refresh_in(const std::string& precision, const std::string& source);
  void account(State& state, const StepStats& stats, Metrics* metrics);
  void validate(const State& state, Metrics* metrics);
  void save(State& state, bool last);
  bool stop_requested();
  bool due(int64_t done, int64_t every) const;
  int64_t samples_at(const State& state) const;
  std::map<std::string, double> epochs_at(const State& state) const;
  formats::Json facts_of(const State& state) const;
  TrainReport report(const State& state, bool preempted) const;

  TrainerParts parts_;
  TrainOptions options_;
  int64_t micro_batches_;
};

}  // namespace retort::train
