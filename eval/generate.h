// Tokens from a model, one after another, for one or several prompts. The prompts share a KV cache, padded on
// the left, and each step is one pass for all that are not finished; yet each prompt gets what it would get
// alone (docs/evaluation.md, "Generation"). Prompt and new tokens together never exceed the context. Throws
// ConfigError for options, DataError for a prompt that is empty, too long or of unknown ids, NonFiniteError
// for logits that are not finite. B batch, T tokens, D width, V vocabulary.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/sampling.h"
#include "models/kv_cache.h"
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
  uint64_t step = 0;                   // of a run, whose every step draws from streams of its own
  std::vector<uint64_t> streams = {};  // one a prompt; empty: 0, 1, ...
};

// Why a model that knows so many tokens cannot read an id, or a prompt of so many; "" when it can.
std::string id_misfit(int64_t id, int64_t tokens);
std::string length_misfit(int64_t prompted, int64_t context);

std::vector<Continuation> generate(models::Model& model, const std::vector<std::vector<int32_t>>& prompts,
                                   const SamplingOptions& options, const GenerateHooks& hooks = {});

// What stays from one prompt to the next: the tokens that the model has read, with their keys and values.
struct ReadTokens {
  std::vector<int32_t> ids = {};
  std::unique_ptr<models::KvCache> cache = {};
  uint64_t prompts = 0;  // so far; each draws from a stream of its own, the first from that of generate()
  int64_t fresh = 0;     // tokens of the last prompt that had to be read
};

// One prompt. Of it the model reads what follows the longest beginning that it has read already, at least the last
// token; a model whose keys depend on what follows them (longrope, byte patches) reads all.
Continuation generate_on(models::Model& model, ReadTokens& read, const std::vector<int32_t>& prompt,
                         const SamplingOptions& options, const GenerateHooks& hooks = {});

// f32 logits [B, T, V], without a cache.
at::Tensor logits(models::Model& model, const at::Tensor& tokens_BT);

}  // namespace retort::eval
