// The `data` section of a recipe: token shards and the shape of a batch; and how ranks share it. Values; any
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/section.h"
#include "data/batch_stream.h"

namespace retort::recipes {

// One of several corpora that are trained on together.
struct SourceOptions {
  std::string train;
  double weight = 1.0;
  void describe(Section& s);
};

struct DataOptions {
  std::string train, validation;
  std::vector<SourceOptions> mixture;          // instead of train
  std::vector<SourceOptions> sources() const;  // the mixture, or train alone
  int64_t limit = 0, sequence = 256, batch_tokens = 16384, micro_batch = 8;
  bool isolate_documents = false;
  std::string packing = "wrapped", long_documents = "split";
  bool packs() const { return packing == "best_fit"; }
  // Of a row of training.
  bool isolates() const { return isolate_documents || packs(); }
  void describe(Section& s);
};
data::BatchOptions batch_options(const DataOptions& data, uint64_t seed);

struct ParallelOptions {
  int64_t ranks = 1;
  std::string shard = "none";
  int64_t replicas = 1;
  std::string transport = "auto";  // auto | nccl | host
  void describe(Section& s);
};

}  // namespace retort::recipes
