// How likely a model finds continuations of contexts: the sum of log p over a continuation's tokens, and whether each
// of them is the likeliest. Requests whose tokens to read are equal share a pass, those of one long context share its
// keys and values, and what is left goes in batches by length.
//
// Batches are the same for every number of ranks, which get the same bits. What `rows` changes is the shape of the
// model's products, which may round otherwise; a request's own head product and sums do not change. docs/evaluation.md
// has the rule. The model is judged on its working weights as they are. Throws
// DataError for ids that the model has not, NonFiniteError.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/comm.h"
#include "eval/perplexity.h"
#include "eval/requests.h"
#include "models/model.h"

namespace retort::eval {

struct LogLikelihood {
  double nats = 0;      // log p, <= 0
  bool greedy = false;  // of equal logits the lowest id counts as the likeliest
  bool operator==(const LogLikelihood&) const = default;
};

// Collective. Answers in the order of the requests.
std::vector<LogLikelihood> log_likelihoods(models::Model& model, const std::vector<TokenRequest>& requests,
                                           comm::Comm& comm, int64_t rows = kScoringRows);

}  // namespace retort::eval
