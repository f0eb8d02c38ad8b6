// The figures of a model on a text, always of its map's f32 weights: a bf16 run's working copies round once
// more.
#pragma once

#include <memory>

#include "comm/comm.h"
#include "eval/perplexity.h"
#include "formats/json.h"
#include "models/model.h"
#include "models/weight_map.h"

namespace retort::recipes {

// The model where its working weights are f32, else a copy whose are. The model outlives it.
class F32Values {
 public:
  F32Values(models::Model& model, models::WeightMap& map);
  models::Model& model() const { return copy_ ? *copy_ : model_; }

 private:
  models::Model& model_;
  std::unique_ptr<models::Model> copy_;
};

// Collective.
eval::TextScore score_f32(models::Model& model, models::WeightMap& map, const data::TokenShards& text,
                          int64_t sequence, comm::Comm& comm, int64_t limit = 0);

// {"bits_per_byte", "perplexity", "nats", "tokens_scored", "bytes_scored", "window"}
formats::Json score_json(const eval::TextScore& score, int64_t sequence);

}  // namespace retort::recipes
