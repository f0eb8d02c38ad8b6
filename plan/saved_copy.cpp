#include "plan/saved_copy.h"

#include <algorithm>
#include <set>

#include "models/weight_groups.h"
#include "models/written_rows.h"
#include "plan/memory.h"

namespace retort::plan {
namespace {

using models::Parameter;
using models::Role;

constexpr double kF32 = 4.0, kStepNumber = 8.0;

}  // namespace

std::vector<SavedTensor> saved_tensors(models::Model& model) {
  std::set<const Parameter*> grouped;
  if (models::WeightGroups* stack = model.weight_groups())
    for (const auto& group : stack->groups()) grouped.insert(group.begin(), group.end());
  std::vector<SavedTensor> out;
  for (const Parameter& p : model.parameters().unique())
    if (!p.borrowed)
      out.push_back({.rows = {p.numel(), models::cut_into_blocks(p.shape), p.role == Role::kScale},
                     .trained = !p.frozen,
                     .matrix = p.role == Role::kMatrix || p.role == Role::kEmbedding || p.role == Role::kHead,
                     .grouped = grouped.contains(&p)});
  return out;
}

double saved_bytes(const std::vector<SavedTensor>& tensors, const Batch& batch, Policy policy, bool copies) {
  const int64_t shards = batch.shards();
  std::vector<Rows> trained, frozen;
  for (const SavedTensor& one : tensors) (one.trained ? trained : frozen).push_back(one.rows);
  const OwnedRows of_trained(trained, shards), of_frozen(frozen, shards);
  double most = 0;
  for (const int64_t rank : followed(batch.ranks)) {
    const int64_t shard = rank % shards;
    double bytes = kStepNumber;
    size_t next_trained = 0, next_frozen = 0;
    for (const SavedTensor& one : tensors) {
      const kernels::RowBlocks own =
          one.trained ? of_trained.of(next_trained++, shard) : of_frozen.of(next_frozen++, shard);
      const auto written = [&](bool divided) {
        const kernels::RowBlock rows = divided ? models::written_rows(own, rank / shards, batch.replicas)
                                               : models::written_rows(one.rows.blocks, rank, batch.ranks);
        return kF32 * static_cast<double>((rows.end - rows.begin) * one.rows.row());
      };
      const bool apart = policy >= Policy::kGradients && one.trained && one.matrix && copies;
      bytes += written(shards > 1 && (apart || (policy == Policy::kParameters && one.grouped)));
      if (one.trained) bytes += 2 * written(shards > 1 && policy >= Policy::kOptimizer);
    }
    most = std::max(most, bytes);
  }
  return most;
}

}  // namespace retort::plan
