// Text from a model, token by token, through a KV cache. Sampling order: temperature, then top-p, then a draw
// from a counter-based stream, so a seed gives the same text on every machine with the same arithmetic.
// temperature 0 is greedy (first of equal maxima). When the context is full, generation stops.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/section.h"
#include "models/model.h"

namespace retort::eval {

struct SamplingOptions {
  int64_t tokens = 128;
  double temperature = 0.0;
  double top_p = 1.0;
  uint64_t seed = 0;
};

// The new tokens. `on_token` streams them; returning false stops.
std::vector<int32_t> generate(models::Model& model, const std::vector<int32_t>& prompt,
                              const SamplingOptions& options,
                              const std::function<bool(int32_t)>& on_token = {});

// f32 logits [B, T, V] without a cache: for tests and `retort logits`, not for losses.
at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT);

}  // namespace retort::eval
