// Ranks as a grid of named axes, outer to inner:
//
//   pp     stages of the model, one after another            cp    chunks of a sequence
//   rep    replicas, each of which has all of the state      tp    shards of a product
//   shard  ranks that divide what a replica has
//
// A rank's number is ((((pp·REP + rep)·SHARD + shard)·CP + cp)·TP + tp), so the innermost axis has neighbours. Of an axis a
// rank sees the group of those that differ from it along that axis alone. The data axes, rep and shard, do work now; what
// asks an axis instead of the whole group assumes nothing of the others. Collective to make; one rank, one thread.
#pragma once

#include <array>
#include <memory>

#include "comm/comm.h"

namespace retort::comm {

enum class Axis { kStages, kReplicas, kShards, kChunks, kProducts };
constexpr std::array<const char*, 5> kAxisNames = {"pp", "rep", "shard", "cp", "tp"};  // as Axis

class Mesh {
 public:
  using Shape = std::array<int64_t, kAxisNames.size()>;  // as Axis
  // `all` outlives it. ConfigError unless the product of the axes is its size.
  Mesh(Comm& all, const Shape& shape);
  // Of an axis of length 1 a group of one; of the only longer one all ranks themselves.
  Comm& axis(Axis axis) const { return *groups_[static_cast<size_t>(axis)]; }
  // This rank's place along it.
  int64_t place(Axis axis) const { return axis_rank_[static_cast<size_t>(axis)]; }

 private:
  std::array<std::shared_ptr<Comm>, kAxisNames.size()> groups_;
  std::array<int64_t, kAxisNames.size()> axis_rank_ = {};
};

}  // namespace retort::comm
