// Text from a model, token by token, through a KV cache. Sampling order: temperature, then top-p, then a draw
// from a counter-based stream, so a seed gives the same text on every machine with the same arithmetic.
// temperature 0 is greedy (first of equal maxima). Prompt and new tokens together never exceed the context:
// when it is full, generation stops. Throws ConfigError for options, DataError for a prompt that is empty,
// too long or of foreign ids, NonFiniteError when the model gives no numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/random.h"
#include "core/section.h"
#include "models/model.h"

namespace retort::eval {

struct SamplingOptions {
  int64_t tokens = 128;      // at most this many new ones
  double temperature = 0.0;  // divides the logits; 0: greedy
  double top_p = 1.0;        // draw among the fewest tokens that hold this share of probability
  uint64_t seed = 0;         // comes from the run, not from a recipe's section
  void describe(Section& s);
};

// The new tokens. `on_token` streams them; returning false stops.
std::vector<int32_t> generate(models::Model& model, const std::vector<int32_t>& prompt,
                              const SamplingOptions& options,
                              const std::function<bool(int32_t)>& on_token = {});

// One choice from f32 logits [V]; a draw takes the `index`-th number of `random`.
int32_t sample_token(const at::Tensor& logits_V, const SamplingOptions& options, const Random& random,
                     uint64_t index);

// f32 logits [B, T, V] without a cache: for tests and `retort logits`, not for losses.
at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT);

}  // namespace retort::eval
