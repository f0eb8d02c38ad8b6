// What a drafter is worth to a target in speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023,
// arXiv 2302.01318): in a round the drafter draws up to K tokens from its q, the target accepts each with min(1, p/q)
// until one is refused, and adds one of its own, so that texts are the target's. At every position of a text, p and q at
// the temperature:
//
//   acceptance        sum over the vocabulary of min(p, q): the chance that a drafted token is accepted there
//   agreement         1 where both have the same likeliest token (of equal ones the first), else 0: the same for greedy
//                     decoding
//   tokens a round    of rounds that follow each other through a window with these chances: expected tokens over
//                     expected rounds, of the rounds that end in it
//
// docs/evaluation.md says when the last is exact. Logits exist for a chunk of rows at a time. Windows' sums are added in
// f64 in the text's order: the same bits on every rank and for every number of ranks. Throws ConfigError, DataError.
#pragma once

#include <cstdint>
#include <span>

#include "comm/comm.h"
#include "data/token_shards.h"
#include "eval/perplexity.h"
#include "eval/ratio.h"
#include "models/model.h"

namespace retort::eval {

struct DraftingOptions {
  int64_t drafted = 4;     // K, tokens that are drafted a round
  double temperature = 1;  // of both distributions
};

struct Drafting {
  Estimate acceptance, agreement;  // means over positions
  Estimate tokens_per_round, greedy_tokens_per_round;
};

// Collective. Models on their working weights as they are, of one vocabulary. limit > 0: only the first `limit` tokens.
Drafting drafting(models::Model& target, models::Model& drafter, const data::TokenShards& text,
                  int64_t sequence, const DraftingOptions& options, comm::Comm& comm, int64_t limit = 0,
                  int64_t rows = kScoringRows);

// Rounds of `drafted` tokens through positions with these chances of acceptance, the first from position 0; those that
// would pass the end do not begin.
struct Rounds {
  double tokens = 0, rounds = 0;
};
Rounds expected_rounds(std::span<const double> acceptance, int64_t drafted);

// Tokens a round if every position accepted with the same chance: (1 - a^(K+1)) / (1 - a).
Estimate geometric_tokens(const Estimate& acceptance, int64_t drafted);

}  // namespace retort::eval
