// How the next token is chosen from logits. In this order, as transformers does it:
//   repetition penalty   logits of tokens that were seen: l / r when l > 0, else l r  (Keskar et al. 2019,
//                        arXiv 1909.05858)
//   temperature          l / t; 0 takes the first of the likeliest and skips the rest
//   top-k                the k likeliest stay
//   top-p                of these the fewest that hold the share p (Holtzman et al. 2020, arXiv 1904.09751)
//   min-p                of these the ones of at least m times the likeliest's probability
//                        (Nguyen et al. 2024, arXiv 2407.01082)
// and a draw from a counter-based stream, so a seed gives the same text on every machine with the same
// arithmetic. The likeliest token always stays. Pure; any thread. Throws ConfigError for options,
// NonFiniteError for logits that are not finite.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/random.h"
#include "core/section.h"

namespace retort::eval {

struct SamplingOptions {
  int64_t tokens = 128;  // at most this many new ones
  double temperature = 0.0;
  int64_t top_k = 0;                   // 0: all
  double top_p = 1.0;                  // 1: all
  double min_p = 0.0;                  // 0: all
  double repetition_penalty = 1.0;     // 1: none
  std::vector<std::string> stop = {};  // texts that end it; eval/complete.h heeds them
  uint64_t seed = 0;                   // comes from the run, not from a recipe's section
  void describe(Section& s);
  void validate() const;
};

// One choice from f32 logits [V]. `seen`: ids of the prompt and of what was generated, in [0, V); a draw
// takes the `index`-th number of `random`.
int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options,
                     std::span<const int32_t> seen, const Random& random, uint64_t index);

}  // namespace retort::eval
