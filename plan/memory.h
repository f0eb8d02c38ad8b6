// Bytes of a rank by part (docs/planning.md says what each is), at each moment of a step that can be the
// highest. The engine (train/owners.h) has kNone, all of a model on every rank; kOptimizer, which divides the
// moments; kGradients, which divides their sums too, and masters that have a working copy, but for a
// validation; kParameters, which divides all masters and working weights of groups that are read in turn, but
// for a start that makes or reads them whole and the end of a run on a grid. ZeRO-1 is masters and moments
// divided among d ranks (Rajbhandari et al. 2020, arXiv 1910.02054), of which kOptimizer has the moments
// alone; the engine does not have it. Pure functions.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "plan/workload.h"

namespace retort::plan {

enum class Policy { kNone, kOptimizer, kZero1, kGradients, kParameters };
inline constexpr std::array kPolicies = {Policy::kNone, Policy::kOptimizer, Policy::kZero1,
                                         Policy::kGradients, Policy::kParameters};
// "none", "optimizer", "gradients", "parameters" (as parallel.shard has them), "ZeRO-1".
std::string policy_name(Policy policy);
Policy policy_of(const std::string& name);
// Ranks whose memory is counted: those at both ends, which own the first and the last, and between them.
std::vector<int64_t> followed(int64_t ranks);
inline bool in_engine(Policy policy) { return policy != Policy::kZero1; }

struct States {
  double weights = 0, working = 0, gradients = 0, optimizer = 0;
  double total() const { return weights + working + gradients + optimizer; }
};

// A rank's share of whole states: kOptimizer divides the optimizer's, ZeRO-1 masters and optimizer,
// kGradients gradients too, kParameters working weights too (its stages 1 to 3; what is gathered comes on
// top). Without a working copy the masters are what is multiplied, and only kParameters divides them.
States sharded(const States& whole, Policy policy, int64_t ranks);

struct Memory {
  States states;
  double activations = 0, head = 0, teacher = 0, data = 0, judged = 0, saved = 0, graph = 0;
  double total() const {
    return states.total() + activations + head + teacher + data + judged + saved + graph;
  }
  std::vector<std::pair<std::string, double>> parts() const;  // by the names above
};

struct Moment {
  std::string name;
  Memory memory;
};

// In the order of a step: "teacher", "loss", "backward", "gradients", "capture", "update", then "start",
// "validation", "save". Where micro-batches are repeated as a graph, its memory is there in all but
// "teacher", "loss" and "backward", which are those of the first micro-batches, that run without, and
// "start".
std::vector<Moment> moments(const Workload& work, Policy policy = Policy::kNone);
Moment peak(const Workload& work, Policy policy = Policy::kNone);  // the highest of them

}  // namespace retort::plan
