// How likely a model finds continuations of contexts: the sum of log p over a continuation's tokens, and whether each
// of them is the likeliest. eval/passes.h says which requests go through the model together.
//
// Every number of ranks gets the same bits. Neither `rows` nor what is asked of other contexts moves a row's tokens in
// its pass or changes the shape of the head's product; only the products of the model's body have more or fewer rows,
// whose bits are the same where the library multiplies rows alike (docs/evaluation.md). The model is judged on its
// working weights as they are. Throws DataError for ids that the model has not, NonFiniteError.
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
