// Whether a rank's memory fits a device, and what would make it fit: fewer rows a micro-batch, a policy, more ranks. Each is
// looked for with all else as it is; what is found is computed, never guessed. Pure functions.
#pragma once

#include <optional>

#include "plan/device.h"
#include "plan/memory.h"

namespace retort::plan {

struct Remedy {
  std::optional<int64_t> rows;  // the most rows of a micro-batch that fit, with the policy that there is
  struct Sharding {
    Policy policy = Policy::kNone;
    int64_t ranks = 1;
    int64_t rows = 1;
  };
  std::optional<Sharding>
      sharding;  // the weakest policy that fits at the fewest ranks, of the given number times 2^k
};

bool fits(const Workload& work, const Device& device, Policy policy = Policy::kNone);
// `policy`: the one that there is. Nothing in it: no number of rows, and no policy on up to 2^16 ranks.
Remedy remedy(const Workload& work, const Device& device, Policy policy = Policy::kNone);

}  // namespace retort::plan
