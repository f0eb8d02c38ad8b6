#include "plan/communication.h"

#include <algorithm>

#include "comm/tree_sum.h"

namespace retort::plan {
namespace {

double others(int64_t ranks) { return static_cast<double>(ranks - 1) / static_cast<double>(ranks); }

}  // namespace

double all_reduce_bytes(double bytes, int64_t ranks) { return 2.0 * others(ranks) * bytes; }

double bytes_sent(const Workload& work, Policy policy) {
  const int64_t ranks = work.batch.ranks, shards = work.batch.shards(),
                micro_batches = work.batch.micro_batches;
  const auto trained = static_cast<double>(work.parameters.trained());
  const auto G = static_cast<double>(micro_batches), S = static_cast<double>(shards);
  if (shards == 1) policy = Policy::kNone;
  // Trees of f32 sums over groups that each have a run of `leaves`. Which runs are complete subtrees repeats itself long
  // before 64 groups.
  const auto summed = [](double elements, int64_t leaves, int64_t groups) {
    const auto rows =
        static_cast<double>(comm::most_subtrees(leaves, static_cast<int>(std::min<int64_t>(groups, 64))));
    return all_reduce_bytes(4.0 * elements, groups) * (rows + 1) / 2;
  };
  const double across = summed(trained / S, micro_batches * shards, work.batch.replicas),
               gradients = G * work.element() * trained;
  switch (policy) {
    case Policy::kNone:
      return summed(trained, micro_batches, ranks);
    case Policy::kOptimizer:
      return summed(trained, micro_batches, ranks) + 4.0 * trained * others(shards) * (1.0 + 1.0 / S);
    case Policy::kGradients:
      return others(shards) * (gradients + work.element() * trained * (1.0 + 1.0 / S)) + across;
    case Policy::kParameters: {
      double brought = work.gathered.brought.bytes(work.element());
      for (const TeacherLoad& teacher : work.teachers)
        brought += teacher.gathered.passed.bytes(teacher.bf16 ? 2 : 4);
      return others(shards) * (gradients + G * brought * (1.0 + 1.0 / S)) + across;
    }
    case Policy::kZero1:
      return others(ranks) * (4.0 + work.element()) * trained;
  }
  return 0;
}

}  // namespace retort::plan
