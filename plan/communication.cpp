#include "plan/communication.h"

#include <algorithm>

#include "comm/tree_sum.h"

namespace retort::plan {
namespace {

double others(int64_t ranks) { return static_cast<double>(ranks - 1) / static_cast<double>(ranks); }

}  // namespace

double all_reduce_bytes(double bytes, int64_t ranks) { return 2.0 * others(ranks) * bytes; }

double bytes_sent(const Workload& work, Policy policy) {
  const int64_t ranks = work.batch.ranks, micro_batches = work.batch.micro_batches;
  const auto trained = static_cast<double>(work.parameters.trained());
  switch (policy) {
    case Policy::kNone:
    case Policy::kOptimizer: {
      // Which runs of micro-batches are complete subtrees repeats itself long before 64 ranks.
      const auto rows = static_cast<double>(
          comm::most_subtrees(micro_batches, static_cast<int>(std::min<int64_t>(ranks, 64))));
      const double masters = 4.0 * trained * others(ranks) * (1.0 + 1.0 / static_cast<double>(ranks));
      return all_reduce_bytes(4.0 * trained, ranks) * (rows + 1) / 2 +
             (policy == Policy::kOptimizer ? masters : 0.0);
    }
    case Policy::kGradients:
      return others(ranks) * work.element() * trained *
             (static_cast<double>(micro_batches) + 1.0 + 1.0 / static_cast<double>(ranks));
    case Policy::kZero1:
      return others(ranks) * (4.0 + work.element()) * trained;
    case Policy::kZero3:
      return others(ranks) * 3.0 * work.element() * trained * static_cast<double>(micro_batches);
  }
  return 0;
}

}  // namespace retort::plan
