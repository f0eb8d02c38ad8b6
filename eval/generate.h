// Tokens from a model, one after another, for one or several prompts. All prompts share a KV cache, padded on
// the left, and every step is one pass for all that still go on, so a batch reads the weights once; a row
// that ends leaves the cache. A model that cannot be padded takes unequal prompts one by one. Each prompt
// gets what it would get alone: row i of a batch draws from stream i of the seed, and row 0 from the stream
// of a single prompt. Prompt and new tokens together never exceed the context. Throws ConfigError for
// options, DataError for a prompt that is empty, too long or of foreign ids, NonFiniteError when the model
// gives no numbers. B batch, T tokens, D width, V vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/sampling.h"
#include "models/model.h"

namespace retort::eval {

// Why a row ended: as many tokens as asked for, the caller's word (a stop text), the end token, a full
// context.
enum class Finish { kLength, kStop, kEnd, kContext };
std::string finish_name(Finish finish);  // "length", "stop", "end", "context"

struct Continuation {
  std::vector<int32_t> ids;  // new ones; an end token is the last
  Finish finish = Finish::kLength;
  double first_seconds = 0, seconds = 0;  // from the start to the first new token, and to the last
  double tokens_per_second() const;       // of decoding: behind the first; 0 for fewer than two
};

struct GenerateHooks {
  std::function<bool(size_t row, int32_t id)> on_token = {};  // streams; false ends the row
  std::vector<int32_t> ends = {};                             // tokens that end a row
};

std::vector<Continuation> generate(models::Model& model, const std::vector<std::vector<int32_t>>& prompts,
                                   const SamplingOptions& options, const GenerateHooks& hooks = {});

// f32 logits [B, T, V] without a cache: for tests and `retort logits`, not for losses.
at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT);

}  // namespace retort::eval
