// Bytes of a rank by part (docs/planning.md says what each is), at each moment of a step that can be the highest. The
// engine has Policy::kNone, all of a model on every rank, and kOptimizer, which divides the moments (train/owners.h).
// The ZeRO policies are what the states would take, divided among d ranks (Rajbhandari et al. 2020, arXiv 1910.02054);
// the engine does not have them yet. Pure functions.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "plan/workload.h"

namespace retort::plan {

enum class Policy { kNone, kOptimizer, kZero1, kZero2, kZero3 };
inline constexpr std::array kPolicies = {Policy::kNone, Policy::kOptimizer, Policy::kZero1, Policy::kZero2,
                                         Policy::kZero3};
std::string policy_name(Policy policy);  // "none", "optimizer" (as parallel.shard has them), "ZeRO-1"
inline bool in_engine(Policy policy) { return policy <= Policy::kOptimizer; }

struct States {
  double weights = 0, working = 0, gradients = 0, optimizer = 0;
  double total() const { return weights + working + gradients + optimizer; }
};

// A rank's share of whole states: kOptimizer divides the optimizer's, ZeRO-1 masters and optimizer, ZeRO-2 gradients too, ZeRO-3 working weights too.
// Without a working copy the masters are what is multiplied, and only ZeRO-3 divides them.
States sharded(const States& whole, Policy policy, int64_t ranks);

struct Memory {
  States states;
  double activations = 0, head = 0, teacher = 0, data = 0, judged = 0;
  double total() const { return states.total() + activations + head + teacher + data + judged; }
  std::vector<std::pair<std::string, double>> parts() const;  // by the names above
};

struct Moment {
  std::string name;
  Memory memory;
};

// In the order of a step: "teacher", "loss", "backward", "gradients", "update", "validation".
std::vector<Moment> moments(const Workload& work, Policy policy = Policy::kNone);
Moment peak(const Workload& work, Policy policy = Policy::kNone);  // the highest of them

}  // namespace retort::plan
