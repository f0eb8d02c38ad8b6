// How the next token is chosen from logits: repetition penalty, temperature, top-k, top-p and min-p, in this
// order, and a draw from a counter-based stream (docs/evaluation.md, "Generation", has the rules and their
// sources). Pure; any thread. Throws ConfigError for options, NonFiniteError for logits that are not finite.
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
  std::vector<std::string> stop = {};  // texts that end it, for eval/complete.h
  uint64_t seed = 0;                   // the run's, not a key of a recipe
  void describe(Section& s);
  void validate() const;
};

// Why these texts cannot end a generation; "" when they can.
std::string stop_misfit(const std::vector<std::string>& stop);

// One choice from f32 logits [V]. `seen`: ids of the prompt and of what was generated, in [0, V). A draw uses
// number `index` of `random`.
int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options,
                     std::span<const int32_t> seen, const Random& random, uint64_t index);

}  // namespace retort::eval
