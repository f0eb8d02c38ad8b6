#include "plan/fit.h"

#include <algorithm>

namespace retort::plan {
namespace {

constexpr int64_t kMostRanks = 1 << 16;

// The same tokens a step of a rank in more micro-batches.
Workload with_rows(Workload work, int64_t rows) {
  work.batch.micro_batches *= work.batch.rows / rows;
  work.batch.rows = rows;
  return work;
}

// The most rows that divide the micro-batch and fit.
std::optional<int64_t> rows_that_fit(const Workload& work, const Device& device, Policy policy) {
  const int64_t all = work.batch.rows;
  const auto fit = [&](int64_t rows) {
    return all % rows == 0 && fits(with_rows(work, rows), device, policy);
  };
  int64_t part = 1;  // divisors above the root of all, as what they are multiplied with, then those below it
  for (; part <= all / part; ++part)
    if (all % part == 0 && fit(all / part)) return all / part;
  for (--part; part >= 1; --part)
    if (fit(part)) return part;
  return std::nullopt;
}

}  // namespace

bool fits(const Workload& work, const Device& device, Policy policy) {
  return peak(work, policy).memory.total() <= device.memory_of_rank(work.batch.ranks);
}

Remedy remedy(const Workload& work, const Device& device, Policy policy) {
  Remedy out{.rows = rows_that_fit(work, device, policy), .sharding = {}};
  const int64_t most = device.shared ? work.batch.ranks : kMostRanks;  // more ranks share one memory
  for (int64_t ranks = work.batch.ranks; ranks <= most && !out.sharding; ranks *= 2)
    for (const Policy stronger : kPolicies) {
      if (stronger == Policy::kNone) continue;
      if (stronger == Policy::kParameters && work.gathered.divided.all() == 0) continue;
      Workload more = work;
      more.batch.ranks = ranks;
      more.batch.micro_batches = std::max<int64_t>(1, work.batch.micro_batches * work.batch.ranks / ranks);
      if (const auto rows = rows_that_fit(more, device, stronger)) {
        out.sharding = {stronger, ranks, *rows};
        break;
      }
    }
  return out;
}

}  // namespace retort::plan
