// Tokens from a model, one after another, for one or several prompts. The prompts share a KV cache, padded on
// the left, and each step is one pass for all that are not finished; yet each prompt gets what it would get
// alone (docs/evaluation.md, "Generation"). Prompt and new tokens together never exceed the context. Throws
// ConfigError for options, DataError for a prompt that is empty, too long or of unknown ids, NonFiniteError
// for logits that are not finite. B batch, T tokens, D width, V vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/sampling.h"
#include "models/model.h"

namespace retort::eval {

// Why a row ended: it has as many tokens as asked for, the caller stopped it (a stop text), its last token is
// an end token, or the context is full.
enum class Finish { kLength, kStop, kEnd, kContext };
std::string finish_name(Finish finish);  // "length", "stop", "end", "context"

struct Continuation {
  std::vector<int32_t> ids;  // the new tokens, an end token included
  Finish finish = Finish::kLength;
  double first_seconds = 0, seconds = 0;  // from the start to the first new token, and to the last
  double tokens_per_second() const;       // of decoding, after the first token; 0 for fewer than two
};

struct GenerateHooks {
  std::function<bool(size_t row, int32_t id)> on_token = {};  // gets each new token; false ends the row
  std::vector<int32_t> ends = {};                             // tokens that end a row
};

std::vector<Continuation> generate(models::Model& model, const std::vector<std::vector<int32_t>>& prompts,
                                   const SamplingOptions& options, const GenerateHooks& hooks = {});

// f32 logits [B, T, V], without a cache.
at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT);

}  // namespace retort::eval
