// One training step: count, forward and backward over G micro-batches, finish, clip, guard, update.
// Collective: every rank runs the same steps. The gradient is that of (sum of losses over all micro-batches
// and ranks) / (count of what they are losses of). Losses and gradients are summed by one tree over the global
// micro-batch numbers (comm/tree_sum.h): a step gives the same bits, however its
// micro-batches are split over ranks of equal threads. A loss or gradient that is not finite on any rank
// skips the update on all. One rank decides where its gradients are, and the host reads once, after the update; several
// decide on the host. A step that has nothing to count on any rank is no update: no forward pass, no decay, no
// momentum, no step of the optimizer's own count.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "core/inject.h"
#include "core/log.h"
#include "data/batch_copies.h"
#include "data/batch_stream.h"
#include "models/model.h"
#include "models/weight_map.h"
#include "train/grad_sync.h"
#include "train/micro_batches.h"
#include "train/micro_graph.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/owners.h"

namespace retort::kernels {
struct Squares;
}

namespace retort::train {

struct StepStats {
  int64_t step = 0;
  // Measured only where something is counted.
  // The mean over what the objective counts, on all ranks.
  double loss = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> parts;                                        // Objective::figures() of the means
  double gradient_norm = std::numeric_limits<double>::quiet_NaN();  // before clipping
  double lr = 0;
  int64_t counted = 0;             // Objective::counted(), on all ranks
  bool skipped = false;            // not finite or beyond a limit: nothing was updated
  std::vector<int> at_fault = {};  // ranks that computed something else when the step ran again
  bool measured() const { return counted > 0; }
};

// Beyond which a step is no update, the same on every rank.
struct StepLimits {
  double loss = std::numeric_limits<double>::infinity();
  double norm = std::numeric_limits<double>::infinity();  // before clipping
  bool rerun = false;  // such a step is computed once more, and the second result counts: at_fault
};

// What a step acts on. All references outlive the TrainStep.
struct StepParts {
  models::Model& model;
  models::WeightMap& map;
  Objective& objective;
  Optimizer& optimizer;
  comm::Comm& comm;
  Owners* owners = nullptr;     // nullptr: every rank owns all
  Injection* faults = nullptr;  // on purpose; nullptr: none
  bool graphs = true;           // train/micro_graph.h, where they can be had
  Log* log = nullptr;           // hears why not
};

class TrainStep {
 public:
  TrainStep(StepParts parts, int64_t micro_batches, double clip_norm);
  TrainStep(const TrainStep&) = delete;
  TrainStep& operator=(const TrainStep&) = delete;
  // `given`: this rank's G micro-batches of the step (train/micro_batches.h).
  StepStats run(int64_t step, const std::vector<data::Batch>& given, double lr,
                const StepLimits& limits = {});
  // No graph is made or repeated in the steps that follow: a profile sees the operations, and must not wait in a capture.
  void run_without_graphs(bool without) { graphs_.run_all_once(without); }
  uint64_t graph_bytes() const { return graphs_.bytes(); }

 private:
  // What came out, and what of it is this rank's own: loss and fingerprint of each micro-batch's gradients, as bits.
  struct Attempt {
    StepStats stats;
    at::Tensor evidence;
  };
  Attempt attempt(StepStats stats, const StepLimits& limits);
  std::vector<at::Tensor> pass(int64_t step, double divisor);
  at::Tensor forward_and_backward(const data::Batch& batch, const at::Tensor& divisor) const;
  void strike(InjectionPoint point, int64_t step, const std::vector<at::Tensor>& victims = {}) const;
  std::vector<int> odd_ranks(const Attempt& first, const Attempt& second) const;
  void read_alone(const at::Tensor& verdict, const at::Tensor& figures_GK, StepStats& stats) const;
  at::Tensor judge_alone(const kernels::Squares& squares, const at::Tensor& figures_GK, int64_t counted,
                         const StepLimits& limits) const;
  at::Tensor judge_together(const kernels::Squares& squares, const at::Tensor& figures_GK,
                            const StepLimits& limits, StepStats& stats) const;
  bool share_figures(const std::vector<at::Tensor>& figures, StepStats& stats) const;

  StepParts parts_;
  MicroBatches micro_batches_;
  double clip_norm_;
  Trained trained_;
  GradSync sync_;
  data::BatchCopies batches_;  // of this rank
  MicroGraphs graphs_;
};

}  // namespace retort::train
