// When things happen: steps, metrics, validation, checkpoints, stopping. The numerics are in step.h.
// Everything that a trainer uses is made by its caller (recipes/), so train/ knows no recipes, teachers or
// grids. The files below its directory are in docs/formats.md. Step s takes batches s (R G) and on, G micro-batches on each
// of R ranks, which share them out (train/micro_batches.h), so the step is the data position.
//
// Collective: every rank calls run(), stops at the same step and throws alike. Every rank writes its part of a checkpoint
// (train/saver.h), rank 0 all else. Ranks whose weights, optimizer state, data or recipe differ at the start are refused
// (SharedError, exit code 2).
#pragma once

#include <atomic>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "core/log.h"
#include "train/checkpoint.h"
#include "train/holders.h"
#include "train/run_state.h"
#include "train/saver.h"
#include "train/step.h"
#include "train/train_options.h"

namespace retort::train {

// Of the whole run, with what was trained before it continued.
struct TrainReport {
  int64_t steps = 0, tokens = 0;
  double seconds = 0;                                            // without validation and saves
  double final_loss = std::numeric_limits<double>::quiet_NaN();  // of the last update; NaN: there was none
  int64_t unlabelled = 0;  // steps that had nothing to learn from, on no rank
  bool preempted = false;  // stopped by a signal after saving
  int64_t model_step = 0;  // of the model's weights: the last, or the step of the best validation figure
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
  // All ranks call it with the updates done, and with whole masters unless owners.gathered() has the weights; it gives
  // figures by name (validation loss). May be empty.
  std::function<std::map<std::string, double>(int64_t done)> validate;
  // The figure by which keep_best and patience choose, where they look at it; "": the first. `higher`: more is better.
  std::string best = {};
  bool higher = false;
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler
  Path resume_from = {};                    // the checkpoint to continue when `directory` has none; or ""
  // For the progress line: a token's FLOPs, and what all ranks together do at most in a second; 0: unknown.
  double flops_per_token = 0, ceiling = 0;
  RangeFiles& ranges = local_ranges();  // for what ranks write together
  int64_t profile = 0;                  // steps whose time rank 0 accounts for (train/profiled_steps.h)
  uint64_t teacher_bytes = 0;           // of models that teach, for tables of memory
  bool strict = false;  // a damaged checkpoint ends the run, and the one before is not taken instead
};

class Metrics;  // train/metrics.h

// A checkpoint's `extra` holds the caller's facts and, under "train", the trainer's: tokens seen, last loss,
// skipped updates and what else guards remember (train/guard.h), steps without labels, the step's batch, how far each source was read, precision.
class Trainer {
 public:
  // micro_batches: this rank's G.
  Trainer(TrainerParts parts, TrainOptions options, int64_t micro_batches);
  // Continues from the newest whole checkpoint in `directory`, if there is one, and trains to options.steps.
  // A run that is there already, or whose patience has ended, returns at once. A checkpoint is saved every checkpoint_every steps, at the
  // end and when stopped; in the background the next one, the end and non-finite steps wait for it. A save that fails causes
  // a warning at the next step that all ranks share; IoError after max_failed_saves in a row, or when the last save of
  // this process fails. What owners.gathered() has stays divided. A step or a validation that is refused memory ends the run with an error that names
  // what holds most of it.
  TrainReport run();

 private:
  enum class Ended { kDone, kPreempted, kGoesBack };
  Ended train(RunState& state);
  std::unique_ptr<Metrics> open_metrics(const RunState& state, int64_t micro_batches) const;  // of a step
  StepStats take_step(TrainStep& step, const RunState& state, const std::vector<data::Batch>& batches);
  void tell_fault(const StepStats& stats);
  void refuse_more(const RunState& state) const;
  RunState go_back(const RunState& state);
  std::vector<Holder> holders(const TrainStep* step) const;
  RunState restore();
  RunState continued(const LoadedCheckpoint& checkpoint);
  Guard new_guard() const;
  void compare_ranks(const RunState& state);
  void refresh_in(const std::string& precision, const std::string& source);
  void account_unlabelled(RunState& state, bool speaks);
  bool goes_on(RunState& state, const StepStats& stats, Metrics* metrics);
  void account(RunState& state, const StepStats& stats, Metrics* metrics);
  void validate(RunState& state, Metrics* metrics);
  bool watches_best() const;
  bool exhausted(const RunState& state) const;
  void adopt_best(RunState& state, const Path& source);
  void take_best(const RunState& state);
  TrainReport finished(const RunState& state);
  void save(RunState& state, bool last);
  void await_save(RunState& state, bool last = false);
  void hear_of_save(RunState& state);
  void settle(RunState& state, const SaveResult& result, bool last);
  bool stop_requested();
  bool due(int64_t done, int64_t every) const;
  formats::Json facts_of(const RunState& state) const;
  TrainReport report(const RunState& state, bool preempted) const;

  TrainerParts parts_;
  TrainOptions options_;
  int64_t micro_batches_;
  DataPosition position_;
  Saver saver_;
  bool faulty_ = false;  // a machine was at fault in this process
};

}  // namespace retort::train
