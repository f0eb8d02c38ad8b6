// Guards of a run's numbers: which steps are no updates, and when the run goes back.
//
//   skipped      the loss or the gradient norm was not finite, or beyond mean + zscore * deviation of those of the last
//                `window` updates, once there are so many
//   gone back    after max_skipped such steps in a row: to a checkpoint `margin` steps before the first of them, or earlier;
//                then those steps and `margin` on either side are left out. It happens `rollbacks` times in a run
//
// Everything is a pure function of what came before, and all of it is in checkpoints, so that a run which was stopped, or
// goes on elsewhere, decides the same on any number of ranks. A step that is left out has its place in the data and in the
// schedule. PaLM, section 5.1: Chowdhery et al. 2022, arXiv 2204.02311.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"
#include "formats/json.h"
#include "train/step.h"

namespace retort::train {

struct GuardOptions {
  double zscore = 0.0;
  int64_t window = 128;
  bool rerun = false;
  int64_t rollbacks = 0;
  int64_t margin = 64;
  int64_t compare_every = 0;
  void describe(Section& s);
};

struct LeftOut {  // steps from `first`, before `end`
  int64_t first = 0, end = 0;
};

class Guard {
 public:
  Guard(const GuardOptions& options, int64_t max_skipped) : options_(options), max_skipped_(max_skipped) {}

  StepLimits limits() const;            // of the next step
  bool leaves_out(int64_t step) const;  // it is no step at all
  void take(const StepStats& stats);    // after a step that was measured
  int64_t in_a_row() const;             // the newest steps, all skipped
  // Whether max_skipped is reached, and whether the run may go back for it: what it leaves out then.
  bool exceeded() const { return in_a_row() >= max_skipped_; }
  bool may_go_back() const { return std::ssize(left_out_) < options_.rollbacks; }
  LeftOut around() const;
  // Of the guard of an earlier checkpoint: what `later` had left out and what it leaves out now.
  void leave_out(const Guard& later);

  const std::vector<int64_t>& skipped() const { return skipped_; }
  void write(formats::Json& train) const;  // into a checkpoint's extra.train
  void read(const formats::Json& train);   // Json::exception

 private:
  GuardOptions options_;
  int64_t max_skipped_;
  std::vector<int64_t> skipped_;  // the journal: steps that were no updates
  std::vector<LeftOut> left_out_;
  std::vector<double> losses_, norms_;  // of the newest updates, at most `window`
  int64_t next_ = 0;
};

}  // namespace retort::train
