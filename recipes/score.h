// The figures of a model on a text, always of its map's f32 weights: a bf16 run's working copies round once
// more.
#pragma once

#include <memory>

#include "comm/comm.h"
#include "eval/perplexity.h"
#include "formats/json.h"
#include "models/model.h"
#include "models/weight_map.h"
#include "train/passing_comm.h"
#include "train/streamed_values.h"

namespace retort::recipes {

// The model where its working weights are f32, else a copy whose are. Where owners.gathered() has the model's weights, the
// values are divided too, and whoever evaluates calls comm() for the group; making it is collective then. What it is made
// of outlives it.
class F32Values {
 public:
  F32Values(models::Model& model, models::WeightMap& map, comm::Comm& comm,
            const train::Owners* owners = nullptr);
  models::Model& model() const { return streamed_ ? streamed_->model() : copy_ ? *copy_ : model_; }
  comm::Comm& comm() const { return passing_ ? *passing_ : comm_; }

 private:
  models::Model& model_;
  comm::Comm& comm_;
  std::unique_ptr<models::Model> copy_;
  std::unique_ptr<train::StreamedValues> streamed_;
  std::unique_ptr<train::PassingComm> passing_;
};

// Collective.
eval::TextScore score_f32(models::Model& model, models::WeightMap& map, const data::TokenShards& text,
                          int64_t sequence, comm::Comm& comm, int64_t limit = 0,
                          const train::Owners* owners = nullptr);

// {"bits_per_byte", "perplexity", "nats", "tokens_scored", "bytes_scored", "window"}
formats::Json score_json(const eval::TextScore& score, int64_t sequence);

}  // namespace retort::recipes
