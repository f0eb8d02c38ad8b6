// How far a model is from the one it was made from (a quantized model from its full precision) on a text: the
// mean KL of their distributions of the next token and how often both have the same likeliest token.
// docs/evaluation.md has the definitions. Logits exist for a chunk of rows at a time. The windows' sums are
// added in f64 in the text's order, so the result has the same bits on every rank and for every number of
// ranks. The models are judged on their working weights as they are; their widths may differ, their
// vocabularies may not. Throws ConfigError, DataError.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "data/token_shards.h"
#include "eval/perplexity.h"
#include "eval/ratio.h"
#include "models/model.h"

namespace retort::eval {

struct Divergence {
  Estimate kl;         // nats, from the reference to the candidate, the mean over positions
  Estimate agreement;  // share of positions
};

// Collective. limit > 0: only the first `limit` tokens.
Divergence divergence(models::Model& reference, models::Model& candidate, const data::TokenShards& text,
                      int64_t sequence, comm::Comm& comm, int64_t limit = 0, int64_t rows = kScoringRows);

}  // namespace retort::eval
