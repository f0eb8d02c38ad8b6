// How far a model lies from the one that it was made from (a quantized model from its full precision), over a
// text. At every position t of a window, both models give a distribution of the next token, p_t the
// reference's and q_t the candidate's, at temperature 1:
//   kl         mean of KL(p_t || q_t) = sum_v p_tv (log p_tv - log q_tv), nats
//   agreement  share of positions at which both have the same likeliest token (of equal ones, the first)
// Windows of `sequence` tokens start at multiples of it; the last one is as long as the text. Logits exist
// for a chunk of rows at a time, never for all tokens. Batches of `rows` windows are dealt to the ranks and
// the windows' sums are added in the text's order in f64, so the result is the same, bit for bit, on every
// rank and for every rank count. The models are judged on their working weights as they are; their widths may
// differ, their vocabularies may not. Throws ConfigError, DataError.
#pragma once

#include <cstdint>

#include "comm/comm.h"
#include "data/token_shards.h"
#include "models/model.h"

namespace retort::eval {

struct Divergence {
  double kl = 0;
  double agreement = 0;
  int64_t positions = 0;
};

// Collective. limit > 0: only the first `limit` tokens.
Divergence divergence(models::Model& reference, models::Model& candidate, const data::TokenShards& text,
                      int64_t sequence, comm::Comm& comm, int64_t rows = 16, int64_t limit = 0);

}  // namespace retort::eval
