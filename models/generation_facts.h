// What a model's files say about generation, beside its weights: the fields of transformers'
// generation_config.json as a JSON object, empty when they say nothing. Retort itself uses eos_token_id, the
// token or tokens that end a text or a turn; all others are kept for a folder that is written again.
// DataError for a file that holds no object, or ids that are no integers. Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "formats/gguf.h"
#include "formats/json.h"

namespace retort::models {

// Of a folder: generation_config.json, and what it lacks of bos_, eos_ and pad_token_id from config.json.
formats::Json hf_generation(const Path& directory);
// Of a GGUF: tokenizer.ggml.eos_token_id, eot_token_id (of a turn) and eom_token_id (of a message).
formats::Json gguf_generation(const formats::GgufFile& file);

// eos_token_id's tokens, in its order, once each; ids outside the vocabulary are left out.
std::vector<int32_t> end_tokens(const formats::Json& generation, int64_t vocabulary);

// `tokenizer` with a GGUF's keys for these: the first is eos, the last of the others eot, the one before it
// eom, as published lists have them ([eos, eom, eot] in Llama 3). The format has no key for more.
formats::GgufMetadata with_end_tokens(formats::GgufMetadata tokenizer, const std::vector<int32_t>& ends);

}  // namespace retort::models
